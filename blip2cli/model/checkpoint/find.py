"""Finding the checkpoint that a name stands for, and checking that it may run as asked, before it is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip2cli.errors import CheckpointError, UsageError
from blip2cli.model.checkpoint.devices import device_named, every_cuda_device
from blip2cli.model.checkpoint.explained import explained
from blip2cli.model.checkpoint.files import ADAPTER, AGAIN, WEIGHTS, json_object, weight_files
from blip2cli.model.checkpoint.hub import USE_ANOTHER, check_name, get
from blip2cli.model.checkpoint.load import CLASSES, Checkpoint
from blip2cli.model.checkpoint.precision import resolve_dtype
from blip2cli.model.checkpoint.processor import image_settings
from blip2cli.model.checkpoint.size import headers
from blip2cli.model.checkpoint.tokenizer import check_tokenizer_files
from blip2cli.model.checkpoint.weights import MERGE, check_weights
from blip2cli.model.families import FAMILIES, Family
from blip2cli.settings import Kind
from blip2cli.tiny import MODEL_DIR, RETRIEVAL_DIR

if TYPE_CHECKING:
    from blip2cli.settings import ModelSettings

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


def find_checkpoint(settings: ModelSettings, kind: Kind | None = None, fetch: bool = True) -> Checkpoint:
    """Find the checkpoint that the settings name, which must be of that kind if one is given; decide device, precision.

    Raises UsageError for a device or precision that cannot be had, CheckpointError for a checkpoint that cannot;
    NotHere where it would have to be fetched from the hub, and is not to be.
    """
    name = settings.name(kind)
    check_name(name)
    device, *others = [device_named(settings.device)] if settings.device_map is None else every_cuda_device()
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
