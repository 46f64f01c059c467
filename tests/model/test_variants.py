"""Variants of OPT and T5 that published checkpoints or configurations have: their texts are those of transformers."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from blip2cli.errors import CheckpointError
from blip2cli.model.blip2 import Blip2Model
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.decoding.requests import EncodedImage, Request
from blip2cli.settings import GenerationSettings, ModelSettings
from tests.conftest import ENDS, INT8, save_checkpoint
from tests.model.test_equal_to_transformers import PROMPTS, SETTINGS, ours, theirs

OPT: dict[str, dict[str, Any]] = {
    "as OPT-350M": {"word_embed_proj_dim": 24, "do_layer_norm_before": False},
    "narrow tokens": {"word_embed_proj_dim": 16},
    "head of its own": {"tie_word_embeddings": False},
    "no biases": {"enable_bias": False},
    "plain norms": {"layer_norm_elementwise_affine": False},
    "GELU": {"activation_function": "gelu"},
    "no last norm": {"_remove_final_layer_norm": True},
}

T5: dict[str, dict[str, Any]] = {
    "as T5": {"feed_forward_proj": "relu", "tie_word_embeddings": True},
    "fewer layers that write": {"feed_forward_proj": "gated-gelu", "num_decoder_layers": 1},
    "gated SiLU": {"feed_forward_proj": "gated-silu"},
}


def saved(folder: Path, family: str, values: dict[str, Any]) -> Path:
    """A small random checkpoint with a variant of a language model."""
    from transformers import OPTConfig, T5Config

    if family == "opt":
        text: Any = OPTConfig(
            **{"vocab_size": 437, "hidden_size": 32, "num_hidden_layers": 2, "ffn_dim": 64, "num_attention_heads": 4,
               "max_position_embeddings": 160, "dropout": 0.0, "bos_token_id": 2, "pad_token_id": 1,
               "eos_token_id": ENDS, **values},
        )  # fmt: skip
    else:
        text = T5Config(
            **{"vocab_size": 437, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
               "dropout_rate": 0.0, "decoder_start_token_id": 0, "bos_token_id": 1, "pad_token_id": 0,
               "eos_token_id": ENDS, **values},
        )  # fmt: skip
    torch.manual_seed(5)
    return save_checkpoint(folder, text)


@pytest.mark.parametrize(
    ("family", "values"),
    [*(("opt", values) for values in OPT.values()), *(("t5", values) for values in T5.values())],
    ids=[*OPT, *T5],
)
@pytest.mark.parametrize("settings", ["greedy", "beams"])
def test_texts_are_those_of_transformers(
    family: str, values: dict[str, Any], settings: str, photos: Path, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "model", family, values)
    texts = ours(folder, photos, SETTINGS[settings], 5, PROMPTS[:2])
    assert texts == theirs(folder, list(texts), SETTINGS[settings])
    assert len(set(texts.values())) > 3, "the random model's texts must differ for this to say much"


def test_tokens_wider_than_the_layers_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", "opt", {"word_embed_proj_dim": 48})
    with pytest.raises(CheckpointError, match="tokens of width 48 and layers of width 32"):
        find_checkpoint(ModelSettings(str(folder), device="cpu"))


@pytest.mark.parametrize("dtype", ["bf16", INT8])
def test_layers_without_any_parameters_decode(dtype: Literal["bf16", "int8"], tmp_path: Path) -> None:
    """Packed and quantised layers have none, and norms may have none."""
    folder = saved(tmp_path / "model", "opt", OPT["plain norms"])
    model = Blip2Model(find_checkpoint(ModelSettings(str(folder), dtype=dtype, device="cpu")), 2)
    image = EncodedImage(torch.randn(model.num_query_tokens, 32).to(model.checkpoint.dtype))
    (completion,) = model.generate([Request(0, image, model.prompt_ids(None), (4, 4))], GenerationSettings())
    assert completion.error is None and len(completion.token_ids) == 4
