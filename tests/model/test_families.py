"""Another family of language models is a record and a decoder class: here LLaMA, with rotary positions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from blip2cli.errors import CheckpointError
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.checkpoint.load import load_weights
from blip2cli.model.checkpoint.placement import layer_names
from blip2cli.model.decoding.decoder_only import Attend, DecoderOnly
from blip2cli.model.families import FAMILIES, Family, Layers
from blip2cli.settings import GenerationSettings, ModelSettings
from tests.conftest import ENDS, save_checkpoint
from tests.model.test_equal_to_transformers import PROMPTS, SETTINGS, ours, theirs

LLAMA = Family(
    name="LLaMA",
    architecture="LLaMA",
    decoder="tests.model.test_families:LlamaDecoder",
    template="Question: {} Short Answer:",
    layers=(Layers("language_model.model.layers.", "num_hidden_layers"),),
    embedding="language_model.model.embed_tokens.weight",
    half="fp16",
    text_encoder="model",
    text_width=lambda text_config: int(text_config.hidden_size),
    positions="max_position_embeddings",
)


class LlamaDecoder(DecoderOnly):
    """Matches transformers' `LlamaForCausalLM` with as many key as query heads."""

    def __init__(self, language_model: Any, *others: Any) -> None:
        self.model, self.head = language_model.model, language_model.lm_head
        self.embedding, self.layers = self.model.embed_tokens, self.model.layers
        super().__init__(language_model, *others)

    def _place(self, embeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return embeds

    def _layer(self, layer: Any, hidden: torch.Tensor, positions: torch.Tensor, attend: Attend) -> torch.Tensor:
        attention, normed = layer.self_attn, layer.input_layernorm(hidden)
        q, k, v = (self._split(part(normed)) for part in (attention.q_proj, attention.k_proj, attention.v_proj))
        q, k = apply_rotary_pos_emb(q, k, *self.model.rotary_emb(hidden, positions.expand(hidden.shape[:2])))
        attended = attend(q * attention.scaling, k, v).transpose(1, 2).reshape(hidden.shape)
        hidden = hidden + attention.o_proj(attended)
        return hidden + layer.mlp(layer.post_attention_layernorm(hidden))

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.model.norm(hidden))
        return logits


@pytest.fixture(scope="module")
def llama_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = LlamaConfig(
        vocab_size=437, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=160, bos_token_id=2, pad_token_id=1, eos_token_id=ENDS,
    )  # fmt: skip
    return save_checkpoint(tmp_path_factory.mktemp("llama"), text)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(FAMILIES, "llama", LLAMA)
    yield


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_its_texts_equal_generate_on_one_image(
    llama_checkpoint: Path, photos: Path, settings: GenerationSettings
) -> None:
    texts = ours(llama_checkpoint, photos, settings, 5, PROMPTS)
    assert texts == theirs(llama_checkpoint, list(texts), settings)
    assert len({len(ids) for ids in texts.values()}) > 1 and len(set(texts.values())) > 12


@pytest.mark.usefixtures("registered")
def test_its_record_says_all_else(llama_checkpoint: Path) -> None:
    checkpoint = find_checkpoint(ModelSettings(model=str(llama_checkpoint), device="cpu"))
    assert checkpoint.family is LLAMA
    model = load_weights(checkpoint)
    assert [type(model.get_submodule(name)).__name__ for name in layer_names(checkpoint.config)] == [
        "LlamaDecoderLayer"
    ] * 2


@pytest.mark.parametrize("family", ["opt", "t5"])
def test_a_record_names_what_the_model_has(family: str, request: pytest.FixtureRequest) -> None:
    checkpoint = find_checkpoint(
        ModelSettings(model=str(request.getfixturevalue(f"{family}_checkpoint")), device="cpu")
    )
    known, model = checkpoint.family, load_weights(checkpoint)
    assert known is FAMILIES[family]
    names = known.layer_names(checkpoint.config.text_config)
    assert len({type(model.get_submodule(name)) for name in names}) == 1
    assert model.get_parameter(known.embedding) is model.get_input_embeddings().weight
    hidden = model.language_model.get_submodule(known.text_encoder)(torch.tensor([[5, 6]])).last_hidden_state
    assert hidden.shape[-1] == known.text_width(checkpoint.config.text_config)


def test_a_family_that_is_not_known_is_refused(llama_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="a language model of type llama, which is not supported") as refused:
        find_checkpoint(ModelSettings(model=str(llama_checkpoint), device="cpu"))
    assert "OPT, Flan-T5" in str(refused.value.hint)
