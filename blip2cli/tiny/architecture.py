"""The network: its configuration, its first weights, and how it is written to a folder and counted."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    BlipImageProcessorPil,
    GenerationConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
)

from .scenes import CANVAS
from .tokenizer import BOS_ID, EOS_ID, IMAGE_ID, PAD_ID, RETRIEVAL_LENGTH

WIDTH = 128
NUM_QUERIES = 8
PROJECTION = 64
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def build_config(vocabulary: int) -> Blip2Config:
    """A BLIP-2 of 2.3 million parameters: vision 128 x 4, Q-Former 128 x 3 with 8 queries, OPT 128 x 3."""
    # the Q-Former reads no text here; transformers still gives it an embedding table
    return _config(vocabulary, vocab_size=8, max_position_embeddings=16)


def build_retrieval_config(vocabulary: int) -> Blip2Config:
    """The same vision tower and a Q-Former of the same size that reads text too; projections to 64 numbers.

    The language model stands in the configuration only, because the class wants one.
    """
    config = _config(
        vocabulary,
        vocab_size=vocabulary,
        max_position_embeddings=RETRIEVAL_LENGTH,
        pad_token_id=PAD_ID,
        use_qformer_text_input=True,
    )
    config.image_text_hidden_size = PROJECTION
    return config


def _config(vocabulary: int, **qformer_text: Any) -> Blip2Config:
    vision = Blip2VisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=CANVAS,
        patch_size=8,
        initializer_range=0.04,
    )
    qformer = Blip2QFormerConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        cross_attention_frequency=1,
        encoder_hidden_size=WIDTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.04,
        **qformer_text,
    )
    language = OPTConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        word_embed_proj_dim=WIDTH,
        ffn_dim=4 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=512,
        dropout=0.0,
        attention_dropout=0.0,
        init_std=0.04,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )
    return Blip2Config(
        vision_config=vision,
        qformer_config=qformer,
        text_config=language,
        num_query_tokens=NUM_QUERIES,
        image_token_index=IMAGE_ID,
        initializer_range=0.04,
    )


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Blip2ForConditionalGeneration:
    """A model with fresh weights. The classes start the queries at zero, from where nothing learns: see below."""
    torch.manual_seed(seed)
    model = Blip2ForConditionalGeneration(build_config(len(tokenizer)))
    embeddings = model.vision_model.embeddings
    for parameter, std in (
        (model.query_tokens, 0.5),
        (embeddings.position_embedding, 0.3),
        (embeddings.class_embedding, 0.04),
    ):
        nn.init.normal_(parameter, std=std)
    return model


def new_retrieval_model(
    tokenizer: PreTrainedTokenizerFast, trained: Blip2ForConditionalGeneration, seed: int
) -> Blip2ForImageTextRetrieval:
    """A model whose vision tower, queries and Q-Former are the trained ones; what concerns text has fresh weights.

    The Q-Former's feed-forward layers for text start as copies of those for queries.
    """
    torch.manual_seed(seed)
    model = Blip2ForImageTextRetrieval(build_retrieval_config(len(tokenizer)))
    model.vision_model.load_state_dict(trained.vision_model.state_dict())
    model.query_tokens.data.copy_(trained.query_tokens.data)
    model.qformer.load_state_dict(trained.qformer.state_dict(), strict=False)
    for layer in model.qformer.encoder.layer:
        layer.intermediate.load_state_dict(layer.intermediate_query.state_dict())
        layer.output.load_state_dict(layer.output_query.state_dict())
    return model


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Blip2Processor:
    """The processor: 64 x 64, bicubic, CLIP's mean and standard deviation, and the number of query tokens."""
    images = BlipImageProcessorPil(
        size={"height": CANVAS, "width": CANVAS}, resample=3, image_mean=list(CLIP_MEAN), image_std=list(CLIP_STD)
    )
    return Blip2Processor(images, tokenizer, num_query_tokens=NUM_QUERIES)


def export(
    model: Blip2ForConditionalGeneration | Blip2ForImageTextRetrieval, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Write the checkpoint in fp16 with tokenizer and processor; files of an earlier one are replaced at the end.

    The configuration says float32, so that a plain `from_pretrained` computes in fp32 and not in a CPU's slow fp16.
    """
    staging = folder.with_name(f".{folder.name}.{os.getpid()}")
    half = type(model)(model.config)
    half.load_state_dict(model.state_dict())
    half.half()
    if isinstance(half, Blip2ForConditionalGeneration):
        half.generation_config = GenerationConfig(
            bos_token_id=BOS_ID, eos_token_id=EOS_ID, pad_token_id=PAD_ID, max_new_tokens=20
        )
    half.save_pretrained(staging)
    processor = build_processor(tokenizer)
    processor.save_pretrained(staging)
    processor.image_processor.save_pretrained(staging)
    _set_in_json(staging / "config.json", dtype="float32")
    _set_in_json(staging / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(staging.iterdir()):
        file.chmod(0o644)
        file.replace(folder / file.name)
    staging.rmdir()


def _set_in_json(file: Path, **values: str) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    for part in (content, *(value for value in content.values() if isinstance(value, dict))):
        part.update({key: value for key, value in values.items() if key in part})
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def parameter_count(model: nn.Module) -> int:
    """Number of parameters, each counted once."""
    return sum(parameter.numel() for parameter in model.parameters())
