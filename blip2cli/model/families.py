"""Families of language models: a record for each, with everything in which they differ.
Nothing heavy is imported.

To add a family, add its record to FAMILIES and the decoder class that it names;
tests/model/test_families.py does so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from blip2cli.host.imports import load_object


@dataclass(frozen=True)
class Layers:
    """One stack of equal layers of a language model.

    Args:
        prefix: the beginning of their weights' names, before the layer's number and a
            dot.
        count: the attribute of the text configuration that says how many there are.
    """

    prefix: str
    count: str

    def names(self, text_config: Any) -> list[str]:
        """The layers' names, in the order in which they run."""
        return [f"{self.prefix}{number}" for number in range(getattr(text_config, self.count))]


@dataclass(frozen=True)
class Family:
    """A family of language models.

    Args:
        name: its name, with which its models' names begin ("Flan-T5-XL").
        architecture: the name that descriptions of checkpoints show.
        decoder: "module:Class" of a LanguageModel, made from (language model, runner,
            image token).
        template: the prompt of the paper's VQA evaluations, with {} for the question.
        layers: its stacks of layers, in the order in which they run; the last one writes.
        embedding: the name of its token embeddings' weights.
        half: the half precision that `--dtype auto` means on CUDA.
        text_encoder: the language model's part that computes the features of texts.
        text_width: function of the text configuration that gives the width of these
            features.
        refused: precision that gives garbage → the one to use instead.
        answer: how an answer follows the prompt.
        positions: the attribute of the text configuration that limits image, prompt and
            text together; None if nothing does.
        prompt_room: the most tokens of a prompt if there are no `positions`.
    """

    name: str
    architecture: str
    decoder: str
    template: str
    layers: tuple[Layers, ...]
    embedding: str
    half: str
    text_encoder: str
    text_width: Callable[[Any], int]
    refused: Mapping[str, str] = field(default_factory=dict)
    answer: str = "{}"
    positions: str | None = None
    prompt_room: int = 2048

    def decoder_class(self) -> Any:
        """The class that decodes with a language model of this family."""
        return load_object(self.decoder)

    def layer_names(self, text_config: Any) -> list[str]:
        """The names of the language model's layers, in the order in which they run."""
        return [name for stack in self.layers for name in stack.names(text_config)]

    def room(self, text_config: Any, others: int) -> int:
        """The most tokens of a prompt; `others` are the image's tokens and those to be
        written."""
        if self.positions is None:
            return self.prompt_room
        return int(getattr(text_config, self.positions)) - others


def _opt_width(text_config: Any) -> int:
    return int(getattr(text_config, "word_embed_proj_dim", None) or text_config.hidden_size)


OPT = Family(
    name="OPT",
    architecture="OPT",
    decoder="blip2cli.model.decoding.opt:OptDecoder",
    template="Question: {} Answer:",
    layers=(Layers("language_model.model.decoder.layers.", "num_hidden_layers"),),
    embedding="language_model.model.decoder.embed_tokens.weight",
    half="fp16",
    text_encoder="model",
    text_width=_opt_width,
    answer=" {}",
    positions="max_position_embeddings",
)

FLAN_T5 = Family(
    name="Flan-T5",
    architecture="T5",
    decoder="blip2cli.model.decoding.t5:T5Decoder",
    template="Question: {} Short answer:",
    layers=(
        Layers("language_model.encoder.block.", "num_layers"),
        Layers("language_model.decoder.block.", "num_decoder_layers"),
    ),
    embedding="language_model.shared.weight",
    half="bf16",
    text_encoder="encoder",
    text_width=lambda text_config: int(text_config.d_model),
    refused={"fp16": "bf16 or fp32"},
)

FAMILIES: dict[str, Family] = {"opt": OPT, "t5": FLAN_T5}
"""Model type in the text configuration → family."""


def family_of_name(language_model: str | None) -> Family | None:
    """The family of a language model such as "Flan-T5-XL"; None if there is no model or
    no such family."""
    if language_model is None:
        return None
    families = (family for family in FAMILIES.values() if language_model.startswith(family.name))
    return next(families, None)


def family_of_weights(names: Iterable[str]) -> Family | None:
    """The family whose layers are among the names of a checkpoint's weights; None if
    there is none."""
    all_names = list(names)
    for family in FAMILIES.values():
        if any(name.startswith(family.layers[-1].prefix) for name in all_names):
            return family
    return None
