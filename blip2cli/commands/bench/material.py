"""Material of the benchmarks: random checkpoints of a given geometry, and generated photographs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from blip2cli.tiny import MODEL_DIR


@dataclass(frozen=True)
class Geometry:
    """Sizes of a BLIP-2 at 224 pixels and patches of 14; the language model is OPT, or Flan-T5 where that is said."""

    vision_width: int
    vision_layers: int
    vision_heads: int
    vision_mlp: int
    qformer_layers: int
    text_width: int
    text_layers: int
    text_heads: int
    flan_t5: bool = False


MIDDLE = Geometry(704, 13, 11, 3072, 6, 1024, 16, 16)
"""387 M parameters: large enough that matrix products dominate, small enough for two cores."""

OPT_2_7B = Geometry(1408, 39, 16, 6144, 12, 2560, 32, 32)
"""The geometry of Salesforce/blip2-opt-2.7b, 3.7 B parameters."""


FLAN_T5_XL = Geometry(1408, 39, 16, 6144, 12, 2048, 24, 32, flan_t5=True)
"""The geometry of Salesforce/blip2-flan-t5-xl, 3.9 B parameters."""

SMALLEST = Geometry(64, 2, 4, 128, 2, 64, 2, 4)
"""For trying out a benchmark."""


def save_random_checkpoint(folder: Path, geometry: Geometry, seed: int = 0, device: str = "cpu") -> Path:
    """Write a checkpoint with random bf16 weights, built in bf16 on a device; the tokenizer is the bundled model's."""
    import torch
    from transformers import AutoTokenizer, Blip2ForConditionalGeneration, Blip2Processor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = Blip2ForConditionalGeneration(_config(geometry))
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        model.query_tokens.normal_(0, 0.5)
        for weight in model.vision_model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.02)
    model.save_pretrained(folder)
    image_processor = BlipImageProcessorPil(size={"height": 224, "width": 224})
    Blip2Processor(image_processor, AutoTokenizer.from_pretrained(MODEL_DIR), 32).save_pretrained(folder)
    return folder


def _config(geometry: Geometry) -> Any:
    from transformers import Blip2Config

    vision = {
        "hidden_size": geometry.vision_width,
        "intermediate_size": geometry.vision_mlp,
        "num_hidden_layers": geometry.vision_layers,
        "num_attention_heads": geometry.vision_heads,
    }
    return Blip2Config(
        vision_config=vision,
        qformer_config={"num_hidden_layers": geometry.qformer_layers},
        text_config=(_t5_config(geometry) if geometry.flan_t5 else _opt_config(geometry)).to_dict(),
        image_token_index=4,
    )


def _opt_config(geometry: Geometry) -> Any:
    from transformers import OPTConfig

    return OPTConfig(
        hidden_size=geometry.text_width,
        word_embed_proj_dim=geometry.text_width,
        ffn_dim=4 * geometry.text_width,
        num_hidden_layers=geometry.text_layers,
        num_attention_heads=geometry.text_heads,
        eos_token_id=50118,
    )


def _t5_config(geometry: Geometry) -> Any:
    from transformers import T5Config

    return T5Config(
        vocab_size=32128,
        d_model=geometry.text_width,
        d_kv=64,
        d_ff=geometry.text_width * 5 // 2,
        num_layers=geometry.text_layers,
        num_heads=geometry.text_heads,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        bos_token_id=1,
        pad_token_id=0,
        eos_token_id=1,
    )


def save_photos(folder: Path, count: int, size: tuple[int, int], seed: int = 0) -> Path:
    """Write JPEGs with the statistics of photographs: smooth areas, edges, and a little noise."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    width, height = size
    for number in range(count):
        coarse = rng.integers(0, 256, (max(height // 40, 2), max(width // 40, 2), 3), dtype=np.uint8)
        image = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
        image += rng.integers(-6, 7, image.shape, dtype=np.int16)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05}.jpg", quality=90)
    return folder


def caption_lengths(count: int, seed: int = 0) -> list[int]:
    """Ragged text lengths of 3 to 20 tokens, about 10 in the mean, the same in every run."""
    rng = np.random.default_rng(seed)
    return [int(length) for length in np.clip(rng.normal(10, 4.5, count).round(), 3, 20)]
