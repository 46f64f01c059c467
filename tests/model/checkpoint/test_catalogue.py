"""The published checkpoints' sizes are those of their architecture, and those that the page shows."""

from pathlib import Path

import pytest
import torch

from blip2cli.model.checkpoint.catalogue import PUBLISHED, PublishedCheckpoint
from blip2cli.model.checkpoint.size import count_weights
from blip2cli.model.families import FLAN_T5

PAGE = Path(__file__).parents[3] / "docs" / "models.md"

OPT = {
    "OPT-2.7B": {"hidden_size": 2560, "word_embed_proj_dim": 2560, "ffn_dim": 10240},
    "OPT-6.7B": {"hidden_size": 4096, "word_embed_proj_dim": 4096, "ffn_dim": 16384},
}
T5 = {
    "Flan-T5-XL": {"d_model": 2048, "d_ff": 5120, "num_heads": 32},
    "Flan-T5-XXL": {"d_model": 4096, "d_ff": 10240, "num_heads": 64},
}


ONE_OF_EACH_SIZE = [known for known in PUBLISHED if not known.name.endswith("-coco")] + [PUBLISHED[4], PUBLISHED[-1]]


@pytest.mark.parametrize("known", ONE_OF_EACH_SIZE)
def test_weights_are_as_many_as_transformers_makes(known: PublishedCheckpoint) -> None:
    assert count_weights(saved_shapes(known)) == known.weights


def saved_shapes(known: PublishedCheckpoint) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights in the checkpoint's files."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval, OPTConfig, T5Config

    text, vision = None, {"image_size": known.image_side}
    if known.language_model in OPT:
        text = OPTConfig(
            vocab_size=50304, num_hidden_layers=32, num_attention_heads=32, **OPT[known.language_model]
        ).to_dict()
    elif known.language_model in T5:
        shape = {"d_kv": 64, "num_layers": 24, "feed_forward_proj": "gated-gelu"}
        text = T5Config(vocab_size=32128, **shape, **T5[known.language_model]).to_dict()
    qformer = {"use_qformer_text_input": text is None}
    config = Blip2Config(vision_config=vision, qformer_config=qformer, text_config=text)
    with torch.device("meta"):
        made = (Blip2ForImageTextRetrieval if text is None else Blip2ForConditionalGeneration)(config)
    shapes = {name: tuple(weight.shape) for name, weight in made.named_parameters()}
    if known.family is FLAN_T5:  # Flan-T5's head is a matrix of its own, which transformers ties for want of a file
        shapes["language_model.lm_head.weight"] = shapes["language_model.shared.weight"]
    return shapes


def test_the_page_shows_the_catalogue() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `Salesforce/")]
    assert rows == [shown(known) for known in PUBLISHED]


def shown(known: PublishedCheckpoint) -> str:
    """A checkpoint's row in docs/models.md."""
    sizes = [f"{known.weights.bytes(name) / 1e9:.1f}" for name in ("fp32", "fp16", "bf16", "int8", "int4")]
    if known.family and "fp16" in known.family.refused:
        sizes[1] = ""
    language_model = known.language_model or "none: retrieval heads"
    tuned = ", tuned on COCO" if known.name.endswith("-coco") else ""
    side = f"{known.image_side} × {known.image_side}"
    cells = [
        f"`{known.name}`", f"{language_model}{tuned}", side, f"{known.weights.total / 1e9:.1f} B", *sizes
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"
