"""Checkpoints: what a name stands for, which precision it may run in, and loading its parts.

Weights come from safetensors only and no remote code is run. What checkpoints saved before transformers 4.46 lack
(`num_query_tokens` in the processor, `image_token_index`, the `<image>` token) is never read here.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from blip2cli.errors import CheckpointError, UsageError
from blip2cli.model import packing, placement, quantize
from blip2cli.model.explained import explained
from blip2cli.model.families import FAMILIES, Family
from blip2cli.model.files import ADAPTER, AGAIN, WEIGHTS, json_object, weight_files
from blip2cli.model.hub import USE_ANOTHER, check_name, get
from blip2cli.model.precision import native_bf16, resolve_dtype
from blip2cli.model.processor import ImageSettings, image_settings
from blip2cli.model.size import headers
from blip2cli.model.tokenizer import check_tokenizer_files, load_tokenizer
from blip2cli.model.weights import MERGE, SAVE_WHOLE, check_weights, judge, loaded_report
from blip2cli.settings import Kind, check_device, devices_named
from blip2cli.tiny import MODEL_DIR, RETRIEVAL_DIR

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from blip2cli.settings import ModelSettings

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

QUANTIZED = ("int8", "int4")

CLASSES: dict[Kind, str] = {
    "generation": "Blip2ForConditionalGeneration",
    "retrieval": "Blip2ForImageTextRetrieval",
}
"""Kind of checkpoint → the class of transformers that it is."""

TINY: dict[Kind, Path] = {"generation": MODEL_DIR, "retrieval": RETRIEVAL_DIR}

REFUSED: dict[Kind, tuple[str, str]] = {
    "generation": (
        "is for retrieval: it has no language model, and cannot write texts",
        "Use it with match, search and embed --features itc; or another, such as Salesforce/blip2-opt-2.7b.",
    ),
    "retrieval": (
        "has a language model, but no heads that compare images with texts",
        "Use a retrieval checkpoint, such as Salesforce/blip2-itm-vit-g.",
    ),
}
"""Kind of checkpoint that is needed → what is said of one of the other kind, and what to do."""

GENERATION_CONFIG = "generation_config.json"


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
        return _family(self.name, self.config, self.kind)

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


def find(settings: ModelSettings, kind: Kind | None = None, fetch: bool = True) -> Checkpoint:
    """Find the checkpoint that the settings name, which must be of that kind if one is given; decide device, precision.

    Raises UsageError for a device or precision that cannot be had, CheckpointError for a checkpoint that cannot;
    NotHere where it would have to be fetched from the hub, and is not to be.
    """
    name = settings.name(kind)
    check_name(name)
    device, *others = [device_named(settings.device)] if settings.device_map is None else _every_device()
    folder = TINY[kind or "generation"] if name == "tiny" else _folder(name, settings.revision, fetch)
    config = _config(name, folder)
    found = _kind(folder, config)
    if kind is not None and kind != found:
        fault, hint = REFUSED[kind]
        raise CheckpointError(f"{name} {fault}", hint)
    if others and found == "retrieval":
        raise UsageError(f"--device-map spreads a language model, and {name} has none", "Leave it out.")
    precision = resolve_dtype(settings.dtype, device.type, _family(name, config, found))
    check_tokenizer_files(name, folder)
    report = check_weights(name, folder, config, CLASSES[found])
    _check_width(name, config, found)
    images = image_settings(folder, config.vision_config.image_size)
    return Checkpoint(name, folder, config, images, device, precision, found, tuple(others), report.unused)


def _folder(name: str, revision: str | None, fetch: bool) -> Path:
    return Path(name) if os.path.isdir(name) else get(name, revision, fetch)


def _config(name: str, folder: Path) -> Any:
    """The configuration of a folder, whose files may be broken. Raises CheckpointError."""
    from transformers import AutoConfig

    path = folder / "config.json"
    if any((folder / file).exists() for file in ADAPTER):
        raise CheckpointError(f"{name} holds an adapter (LoRA), which changes another checkpoint's weights", MERGE)
    saved = json_object(path)
    kind = saved.get("model_type")
    if not saved:
        raise CheckpointError(f"{name} contains no checkpoint (no config.json)", USE_ANOTHER)
    if kind not in ("blip-2", "blip_2"):
        raise CheckpointError(
            f"{name} is a {kind} checkpoint, not BLIP-2", "docs/models.md lists the supported checkpoints."
        )
    if saved.get("quantization_config"):
        raise CheckpointError(
            f"{name} was saved in quantised form, which is not supported",
            "Use the checkpoint that it was made from, with --dtype int8 or int4.",
        )
    with explained(f"{path} is not valid", AGAIN):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if not isinstance(config.vision_config.image_size, int):
        raise CheckpointError(f"{path}: image_size {config.vision_config.image_size} is not a number", AGAIN)
    if not weight_files(folder):
        raise CheckpointError(f"{name} has no weights in {WEIGHTS}", _instead(folder))
    _check_others(folder)
    return config


def _instead(folder: Path) -> str:
    """What to do about a folder without weights, by what it has."""
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if others:
        return f"The folder has {others[0]}; only the names that save_pretrained gives are read."
    if any(folder.glob("*.bin")):
        return "Pickled weights are not loaded; convert them first."
    return "Save or fetch them: the model's save_pretrained writes them."


def _check_others(folder: Path) -> None:
    """Raise CheckpointError for a broken file that transformers would take for none."""
    ends = json_object(folder / GENERATION_CONFIG).get("eos_token_id")
    if not all(isinstance(end, int) for end in (ends if isinstance(ends, list) else [ends or 0])):
        raise CheckpointError(f"{folder / GENERATION_CONFIG}: eos_token_id {ends} is not a token's number", AGAIN)


def _kind(folder: Path, config: Any) -> Kind:
    """What the checkpoint is made for, by the class it was saved as; where that says nothing, by its weights."""
    for kind, name in CLASSES.items():
        if name in (config.architectures or ()):
            return kind
    return "retrieval" if any(name.startswith("itm_head.") for name in headers(folder)) else "generation"


def _family(name: str, config: Any, kind: Kind) -> Family | None:
    """The language model's family; retrieval checkpoints only have its config. Raises CheckpointError."""
    if kind == "retrieval":
        return None
    model_type = config.text_config.model_type
    if model_type not in FAMILIES:
        raise CheckpointError(
            f"{name} has a language model of type {model_type}, which is not supported",
            f"Supported: {', '.join(family.name for family in FAMILIES.values())}; see docs/models.md.",
        )
    return FAMILIES[model_type]


def _check_width(name: str, config: Any, kind: Kind) -> None:
    """Raise CheckpointError where the tokens of the language model are wider than what the image is projected to."""
    text = config.text_config
    tokens, layers = getattr(text, "word_embed_proj_dim", 0), text.hidden_size
    if kind == "generation" and tokens > layers:
        raise CheckpointError(
            f"{name} has tokens of width {tokens} and layers of width {layers}: they cannot be joined",
            "transformers cannot run it either; correct word_embed_proj_dim if config.json is wrong.",
        )


def device_named(device: str) -> torch.device:
    if device == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    chosen = torch.device(check_device(device))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"--device {device}: this PyTorch sees no CUDA device", "Use --device cpu, or install a CUDA build."
        )
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {device}: there are {torch.cuda.device_count()} CUDA devices", "The first is cuda:0."
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: this PyTorch has no MPS", "Use --device cpu.")
    return chosen


def _every_device() -> list[torch.device]:
    """The devices of --device-map auto. Raises UsageError where there are not several."""
    count = torch.cuda.device_count()
    if count < 2:
        raise UsageError(
            f"--device-map auto is for several CUDA devices, and this PyTorch sees {count or 'none'}", "Leave it out."
        )
    return [torch.device("cuda", number) for number in range(count)]


def devices_of(devices: str) -> list[torch.device]:
    """The devices of --devices, one for each replica. Raises UsageError where one is not there."""
    named = devices_named(devices)
    if named != ["all"]:
        return [device_named(name) for name in named]
    if not torch.cuda.is_available():
        raise UsageError("--devices all: this PyTorch sees no CUDA device", "Use --devices cpu:N, or a CUDA build.")
    return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
