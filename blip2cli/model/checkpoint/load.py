"""`Checkpoint`: a checkpoint that was found and may run as asked, which loads its model
and its tokenizer.

Weights come from safetensors only and no remote code is run. What checkpoints saved
before transformers 4.46 lack (`num_query_tokens` in the processor, `image_token_index`,
the `<image>` token) is never read here.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from blip2cli.host.terminal import weights_counted
from blip2cli.model.checkpoint import packing, placement, quantize
from blip2cli.model.checkpoint.explained import explained
from blip2cli.model.checkpoint.precision import native_bf16
from blip2cli.model.checkpoint.processor import ImageSettings
from blip2cli.model.checkpoint.tokenizer import load_tokenizer
from blip2cli.model.checkpoint.weights import SAVE_WHOLE, check_report, report_of_loading
from blip2cli.model.families import FAMILIES, Family
from blip2cli.settings import Kind

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

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

    def load_model(self) -> PreTrainedModel:
        """The model in its dtype on its device or devices, ready to run.

        Raises CheckpointError.
        """
        parts: placement.Placement = {}
        if self.others:
            parts = placement.device_map(self.config, placement.place_layers(self), self.device)
        model = self._load_weights(parts)
        if parts:
            placement.move_inputs_of_parts(model, parts)
        if all(device.type == "cpu" for device in self.devices):
            self._prepare_for_cpu(model)
        ready: PreTrainedModel = model.eval()
        return ready

    def _load_weights(self, parts: placement.Placement) -> Any:
        """The model as transformers loads it, with its `parts` on these devices.

        Raises CheckpointError.
        """
        import transformers

        architecture = getattr(transformers, CLASSES[self.kind])
        options = self._loading_options(parts)
        with explained(f"cannot load {self.name}", SAVE_WHOLE), weights_counted(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The following device_map keys")  # query_tokens are not a module
            model, info = architecture.from_pretrained(
                self.folder, use_safetensors=True, output_loading_info=True, **options
            )
        if "quantization_config" not in options:  # bitsandbytes adds weights of its own
            check_report(self.name, report_of_loading(info, model))
        return model

    def _loading_options(self, parts: placement.Placement) -> dict[str, Any]:
        """Arguments of from_pretrained."""
        options: dict[str, Any] = {"dtype": self.dtype}
        if parts:
            options["device_map"] = parts
        elif self.device.type != "cpu":
            options["device_map"] = {"": self.device}
        if self.precision in QUANTIZED and self.device.type == "cpu":
            options["dtype"] = "auto"  # as saved: the layers are quantised from the mapped file, one by one
        elif self.precision in QUANTIZED:
            options["quantization_config"] = quantize.bitsandbytes_config(self.precision, self.dtype)
        return options

    def _prepare_for_cpu(self, model: Any) -> None:
        """Replace layers by those that are fast on this processor, in place."""
        if self.precision in QUANTIZED:
            quantize.quantize_linears(model, self.dtype)
        elif self.precision in ("fp32", "bf16") and packing.is_available(self.dtype):
            packing.pack_linears(model)
        if self.dtype == torch.bfloat16:
            model.vision_model.set_attn_implementation("eager")  # half the time of the fused one, for so few patches

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
