"""Checkpoints: what a name stands for, which precision it may run in, and loading its parts.

Weights come from safetensors only and no remote code is run. What checkpoints saved before transformers 4.46 lack
(`num_query_tokens` in the processor, `image_token_index`, the `<image>` token) is never read here.
"""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from blip2cli.errors import CheckpointError, UsageError
from blip2cli.model import packing, placement, quantize
from blip2cli.model.families import FAMILIES, Family
from blip2cli.model.hub import complete
from blip2cli.model.precision import native_bf16, settled
from blip2cli.model.size import headers
from blip2cli.settings import Kind, check_device, devices_named
from blip2cli.tiny import MODEL_DIR, RETRIEVAL_DIR

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from blip2cli.settings import ModelSettings

logger = logging.getLogger(__name__)

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
        "is for retrieval: it has no language model, and writes nothing",
        "Use it with match, search and embed --features itc; or another, such as Salesforce/blip2-opt-2.7b.",
    ),
    "retrieval": (
        "has a language model, and no heads that compare images with texts",
        "Use a retrieval checkpoint, such as Salesforce/blip2-itm-vit-g.",
    ),
}
"""Kind of checkpoint that is needed → what is said of one of the other kind, and what to do."""

HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
"""What is fetched from the hub: no pickled weights, no code."""

NO_CHECKPOINT = "Check name and network, or use --model FOLDER (a local checkpoint) or --model tiny (bundled)."

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImageSettings:
    """What the checkpoint's preprocessor says: the side in pixels, and the mean and deviation of each channel."""

    side: int
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    rescale: float = 1 / 255


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been found and may run as asked; its weights are not loaded yet.

    `kind` says what it is made for. `precision` is the choice made for `dtype` (auto settled): fp32, fp16, bf16, int8
    or int4. Where the language model's layers are to be spread, `others` are the devices beside the first.
    """

    name: str
    folder: Path
    config: Any
    images: ImageSettings
    device: torch.device
    precision: str
    kind: Kind = "generation"
    others: tuple[torch.device, ...] = ()

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
            return "this processor does not multiply bf16 itself: --dtype fp32, or int8, is several times faster"
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
        try:
            cls = getattr(transformers, CLASSES[self.kind])
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The following device_map keys")  # query_tokens are no module
                model = cls.from_pretrained(self.folder, use_safetensors=True, **how)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise _not_loaded(self.name, error) from error
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
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise _not_loaded(self.name, error) from error
        tokenizer.split_special_tokens = True
        if getattr(tokenizer, "is_fast", False):
            backend = tokenizer.backend_tokenizer
            backend.no_padding()  # settings of a saved tokenizer would cut or fill prompts
            backend.no_truncation()
            _split_special_tokens(backend, tokenizer.all_special_tokens)
        return tokenizer


class NotHere(CheckpointError):
    """The checkpoint is not on this machine."""


def find(settings: ModelSettings, kind: Kind | None = None, fetch: bool = True) -> Checkpoint:
    """Find the checkpoint that the settings name, which must be of that kind if one is given; decide device, precision.

    Raises UsageError for a device or precision that cannot be had, CheckpointError for a checkpoint that cannot;
    NotHere where it would have to be fetched from the hub, and is not to be.
    """
    name = settings.name(kind)
    device, *others = [device_named(settings.device)] if settings.device_map is None else _every_device()
    folder = TINY[kind or "generation"] if name == "tiny" else _folder(name, settings.revision, fetch)
    config = _config(name, folder)
    found = _kind(folder, config)
    if kind is not None and kind != found:
        fault, hint = REFUSED[kind]
        raise CheckpointError(f"{name} {fault}", hint)
    if others and found == "retrieval":
        raise UsageError(f"--device-map spreads a language model, and {name} has none", "Leave it out.")
    precision = settled(settings.dtype, device.type, _family(name, config, found))
    images = _image_settings(folder, config)
    return Checkpoint(name, folder, config, images, device, precision, found, tuple(others))


def _folder(name: str, revision: str | None, fetch: bool) -> Path:
    """Where the checkpoint lies: a local folder, in the hub's cache, or fetched from the hub now.

    What is in the cache whole is used as it is, without asking the hub: the same run gives the same rows tomorrow.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    if os.path.isdir(name):
        return Path(name)
    for cached in (True, False) if fetch else (True,):
        try:
            folder = snapshot_download(name, revision=revision, local_files_only=cached, allow_patterns=HUB_FILES)
        except HFValidationError:
            raise CheckpointError(f"there is no folder {name}, and it is no hub id", NO_CHECKPOINT) from None
        except Exception as error:  # the hub's own, and those of its HTTP client and sockets
            logger.debug("%s: %s", name, error)
            continue
        if not cached or complete(Path(folder)):
            return Path(folder)
    if not fetch:
        raise NotHere(f"the checkpoint {name} is not cached", NO_CHECKPOINT)
    raise CheckpointError(f"cannot get the checkpoint {name}: not cached, and the hub did not give it", NO_CHECKPOINT)


def _config(name: str, folder: Path) -> Any:
    from transformers import AutoConfig

    if not (folder / "config.json").exists():
        raise CheckpointError(f"{name} holds no checkpoint (no config.json)", NO_CHECKPOINT)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _not_loaded(name, error) from error
    if config.model_type not in ("blip-2", "blip_2"):
        raise CheckpointError(
            f"{name} is a {config.model_type} checkpoint, not BLIP-2", "docs/models.md has those that run."
        )
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{name} has no weights in safetensors", "Pickled weights are not loaded; convert them first."
        )
    return config


def _kind(folder: Path, config: Any) -> Kind:
    """What the checkpoint is made for, by the class it was saved as; where that says nothing, by its weights."""
    for kind, name in CLASSES.items():
        if name in (config.architectures or ()):
            return kind
    try:
        weights = headers(folder)
    except Exception as error:  # safetensors' own, which has no public base
        raise _not_loaded(str(folder), error) from error
    return "retrieval" if any(name.startswith("itm_head.") for name in weights) else "generation"


def _family(name: str, config: Any, kind: Kind) -> Family | None:
    """The language model's family; retrieval checkpoints only have its config. Raises CheckpointError."""
    if kind == "retrieval":
        return None
    model_type = config.text_config.model_type
    if model_type not in FAMILIES:
        raise CheckpointError(
            f"{name} has a language model of type {model_type}, which cannot be run here",
            f"Those that can: {', '.join(family.name for family in FAMILIES.values())}; see docs/models.md.",
        )
    return FAMILIES[model_type]


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
            f"--device {device}: there are {torch.cuda.device_count()} CUDA devices", "They count from cuda:0."
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


def _image_settings(folder: Path, config: Any) -> ImageSettings:
    """From the image processor's part of processor_config.json (transformers 5), or preprocessor_config.json."""
    saved = _json(folder / "processor_config.json").get("image_processor")
    saved = saved or _json(folder / "preprocessor_config.json")
    size = saved.get("size") or config.vision_config.image_size
    side: Any = size.get("height") or size.get("shortest_edge") if isinstance(size, dict) else size
    return ImageSettings(
        side=int(side),
        mean=tuple(saved.get("image_mean") or CLIP_MEAN),
        std=tuple(saved.get("image_std") or CLIP_STD),
        rescale=float(saved.get("rescale_factor") or 1 / 255),
    )


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def _split_special_tokens(backend: Any, special_tokens: list[str]) -> None:
    """Part the first character of each special token from the rest: T5's pieces have them among the words."""
    from tokenizers import Regex, pre_tokenizers

    starts = "|".join(f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in special_tokens if token[1:])
    steps = [backend.pre_tokenizer, pre_tokenizers.Split(Regex(starts), "isolated")]
    backend.pre_tokenizer = pre_tokenizers.Sequence([step for step in steps if step is not None])


def _not_loaded(name: str, error: BaseException) -> CheckpointError:
    reason = " ".join(str(error).split())[:160]
    return CheckpointError(f"cannot load {name}: {reason}", "Is the folder complete? save_pretrained writes all of it.")
