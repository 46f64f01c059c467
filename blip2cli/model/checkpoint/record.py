"""`Checkpoint`: a checkpoint that was found and may run as asked. `load.py` loads its weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from blip2cli.model.checkpoint.precision import native_bf16
from blip2cli.model.checkpoint.processor import ImageSettings
from blip2cli.model.checkpoint.tokenizer import load_tokenizer
from blip2cli.model.families import FAMILIES, Family
from blip2cli.settings import Kind

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

QUANTIZED = ("int8", "int4")
"""Precisions of quantised weights."""

CLASSES: dict[Kind, str] = {
    "generation": "Blip2ForConditionalGeneration",
    "retrieval": "Blip2ForImageTextRetrieval",
}
"""Kind of checkpoint → its class in transformers."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found and may run as asked; its weights are not loaded yet.

    Args:
        name: as the user gave it.
        folder: where its files are.
        config: transformers' configuration.
        images: what its image processor does.
        device: where the model runs.
        precision: the one chosen: fp32, fp16, bf16, int8 or int4.
        kind: what it is made for.
        others: where the language model's layers are spread over several devices, those
            after the first.
        unused: names of weights that belong to no part of the model, such as heads for
            another use.
        ranker: the checkpoint that ranks the texts that this one writes.
    """

    name: str
    folder: Path
    config: Any
    images: ImageSettings
    device: torch.device
    precision: str
    kind: Kind = "generation"
    others: tuple[torch.device, ...] = ()
    unused: tuple[str, ...] = ()
    ranker: Ranker | None = None

    def on(self, device: torch.device) -> Checkpoint:
        """The same on one other device, together with its ranker."""
        ranker = self.ranker
        if ranker is not None:
            ranker = replace(ranker, checkpoint=ranker.checkpoint.on(device))
        return replace(self, device=device, ranker=ranker)

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """All devices that the model is on."""
        return (self.device, *self.others)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights that are not quantised, and of activations."""
        if self.precision not in QUANTIZED:
            return DTYPES[self.precision]
        if self.device.type == "cpu":
            return torch.bfloat16 if native_bf16() else torch.float32
        return DTYPES["fp16" if self.family is None else self.family.half]

    @property
    def caution(self) -> str | None:
        """A warning about the precision, to be shown before the model is loaded; None if
        there is none."""
        if self.precision == "bf16" and self.device.type == "cpu" and not native_bf16():
            return "this processor has no bf16 instructions: --dtype fp32 or int8 is several times faster"
        return None

    @property
    def family(self) -> Family | None:
        """The language model's family; None where there is no language model."""
        return None if self.kind == "retrieval" else FAMILIES[self.config.text_config.model_type]

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, to which special tokens in a text, such as `</s>`, are text.

        Raises CheckpointError.
        """
        reader = self.config.text_config if self.kind == "generation" else self.config.qformer_config
        return load_tokenizer(self.name, self.folder, reader.vocab_size)


@dataclass(frozen=True)
class Ranker:
    """A retrieval checkpoint that ranks the texts of a captioner.

    Args:
        checkpoint: the one with the retrieval heads.
        shares_vision: whether the layers of its vision model hold the captioner's weights,
            so that an image goes through them once.
    """

    checkpoint: Checkpoint
    shares_vision: bool
