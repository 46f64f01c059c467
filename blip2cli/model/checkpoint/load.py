"""`Checkpoint`: one that was found and may run as asked, and loading its model and its tokenizer.

Weights come from safetensors only and no remote code is run. What checkpoints saved before transformers 4.46 lack
(`num_query_tokens` in the processor, `image_token_index`, the `<image>` token) is never read here.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from blip2cli.model.checkpoint import packing, placement, quantize
from blip2cli.model.checkpoint.explained import explained
from blip2cli.model.checkpoint.precision import native_bf16
from blip2cli.model.checkpoint.processor import ImageSettings
from blip2cli.model.checkpoint.tokenizer import load_tokenizer
from blip2cli.model.checkpoint.weights import SAVE_WHOLE, judge, loaded_report
from blip2cli.model.families import FAMILIES, Family
from blip2cli.settings import Kind

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

QUANTIZED = ("int8", "int4")

CLASSES: dict[Kind, str] = {
    "generation": "Blip2ForConditionalGeneration",
    "retrieval": "Blip2ForImageTextRetrieval",
}
"""Kind of checkpoint → the class of transformers that it is."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been found and may run as asked; its weights are not loaded yet.

    `kind` says what it is made for. `precision` is the choice made for `dtype` (auto settled): fp32, fp16, bf16, int8
    or int4. Where the language model's layers are to be spread, `others` are the devices beside the first. `unused` are
    weights that are no part of the model, such as heads for another use.
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

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """All devices that the model lies on."""
        return (self.device, *self.others)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights that are not quantised, and of activations."""
        if self.precision in QUANTIZED and self.device.type == "cpu":
            return torch.bfloat16 if native_bf16() and quantize.fast() else torch.float32
        if self.precision in QUANTIZED:
            return DTYPES["fp16" if self.family is None else self.family.half]
        return DTYPES[self.precision]

    @property
    def caution(self) -> str | None:
        """What a user should know of the precision before the model is loaded."""
        if self.precision == "bf16" and self.device.type == "cpu" and not native_bf16():
            return "this processor has no bf16 instructions: --dtype fp32 or int8 is several times faster"
        return None

    @property
    def family(self) -> Family | None:
        """The language model's family; None where there is no language model."""
        return None if self.kind == "retrieval" else FAMILIES[self.config.text_config.model_type]

    def load_model(self) -> PreTrainedModel:
        """The model in its dtype on its device or devices, ready to run. Raises CheckpointError."""
        import transformers

        on_cpu, quantized = self.device.type == "cpu", self.precision in QUANTIZED
        how: dict[str, Any] = {"dtype": self.dtype}
        parts = placement.device_map(self.config, placement.placed(self), self.device) if self.others else {}
        if parts or not on_cpu:
            how["device_map"] = parts or {"": self.device}
        if quantized and on_cpu:
            how["dtype"] = "auto"  # as saved: the layers are quantised from the mapped file, one by one
        elif quantized:
            how["quantization_config"] = quantize.bitsandbytes_config(self.precision, self.dtype)
        architecture = getattr(transformers, CLASSES[self.kind])
        with explained(f"cannot load {self.name}", SAVE_WHOLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The following device_map keys")  # query_tokens are no module
            model, info = architecture.from_pretrained(
                self.folder, use_safetensors=True, output_loading_info=True, **how
            )
        if "quantization_config" not in how:  # bitsandbytes adds weights of its own
            judge(self.name, loaded_report(info, model))
        if parts:
            placement.connect(model, parts)
        if quantized and on_cpu:
            quantize.quantize_linears(model, self.dtype)
        if self.precision == "bf16" and on_cpu and packing.available():
            packing.pack_linears(model)
        if on_cpu and self.dtype == torch.bfloat16:
            model.vision_model.set_attn_implementation("eager")  # half the time of the fused one, for so few patches
        ready: PreTrainedModel = model.eval()
        return ready

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of what goes in, to which `</s>` or `<image>` in a text is text. Raises CheckpointError."""
        reader = self.config.text_config if self.kind == "generation" else self.config.qformer_config
        return load_tokenizer(self.name, self.folder, reader.vocab_size)
