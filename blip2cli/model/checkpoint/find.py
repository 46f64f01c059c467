"""Finding the checkpoint that a name refers to, and checking, before it is loaded, that
it may run as asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip2cli.errors import CheckpointError, UsageError
from blip2cli.host.imports import without_collection
from blip2cli.model.checkpoint.devices import device_named, every_cuda_device
from blip2cli.model.checkpoint.explained import explained
from blip2cli.model.checkpoint.files import ADAPTER, COPY_AGAIN, WEIGHTS, json_object, weight_files
from blip2cli.model.checkpoint.hub import USE_ANOTHER, check_model_name, hub_folder
from blip2cli.model.checkpoint.kernel_choice import check_kernels
from blip2cli.model.checkpoint.local import TINY
from blip2cli.model.checkpoint.precision import resolve_dtype
from blip2cli.model.checkpoint.processor import image_settings
from blip2cli.model.checkpoint.record import CLASSES, Checkpoint
from blip2cli.model.checkpoint.size import weight_headers
from blip2cli.model.checkpoint.tokenizer import check_tokenizer_files
from blip2cli.model.checkpoint.weights import MERGE, check_weights
from blip2cli.model.families import FAMILIES, Family
from blip2cli.settings import Kind

if TYPE_CHECKING:
    from blip2cli.settings import ModelSettings

WRONG_KIND: dict[Kind, tuple[str, str]] = {
    "generation": (
        "is for retrieval: it has no language model, and cannot write texts",
        "Use it with match, search and embed --features itc; or another, such as Salesforce/blip2-opt-2.7b.",
    ),
    "retrieval": (
        "has a language model, but no heads that compare images with texts",
        "Use a retrieval checkpoint, such as Salesforce/blip2-itm-vit-g.",
    ),
}
"""The kind that is needed → what is wrong with a checkpoint of the other kind, and what
to do."""

GENERATION_CONFIG = "generation_config.json"


@without_collection()
def find_checkpoint(settings: ModelSettings, kind: Kind | None = None, fetch: bool = True) -> Checkpoint:
    """Find the checkpoint that the settings name, check it, and choose its devices and
    precision.

    Args:
        settings: its name, and what is asked for.
        kind: the kind that it must be of; None for any.
        fetch: whether it may be downloaded.

    Raises UsageError for a device or precision that is not available, CheckpointError for
    a checkpoint that cannot be used, NotCached for one that would have to be downloaded.
    """
    name = settings.name(kind)
    check_model_name(name)
    spread = settings.device_map is not None
    devices = every_cuda_device() if spread else [device_named(settings.device)]
    folder = TINY[kind or "generation"] if name == "tiny" else _folder(name, settings.revision, fetch)
    config = _config(name, folder)
    actual = _kind(folder, config)
    _check_kind(name, actual, kind, spread)
    precision = resolve_dtype(settings.dtype, devices[0].type, _family(name, config, actual))
    if precision == "int8" and devices[0].type == "cpu":
        check_kernels()
    check_tokenizer_files(name, folder)
    report = check_weights(name, folder, config, CLASSES[actual])
    _check_width(name, config, actual)
    return Checkpoint(
        name=name,
        folder=folder,
        config=config,
        images=image_settings(folder, config.vision_config.image_size),
        device=devices[0],
        precision=precision,
        kind=actual,
        others=tuple(devices[1:]),
        unused=report.unused,
    )


def _folder(name: str, revision: str | None, fetch: bool) -> Path:
    return Path(name) if os.path.isdir(name) else hub_folder(name, revision, fetch)


def _config(name: str, folder: Path) -> Any:
    """The configuration of a folder, whose files may be broken.

    Raises CheckpointError.
    """
    from transformers import AutoConfig

    path = folder / "config.json"
    if any((folder / file).exists() for file in ADAPTER):
        raise CheckpointError(f"{name} holds an adapter (LoRA), which changes another checkpoint's weights", MERGE)
    _check_type(name, json_object(path))
    with explained(f"{path} is not valid", COPY_AGAIN):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    side = config.vision_config.image_size
    if not isinstance(side, int):
        raise CheckpointError(f"{path}: image_size {side} is not a number", COPY_AGAIN)
    if not weight_files(folder):
        raise CheckpointError(f"{name} has no weights in {WEIGHTS}", _hint_without_weights(folder))
    _check_generation_config(folder)
    return config


def _check_type(name: str, config: dict[str, Any]) -> None:
    """Check that config.json describes a BLIP-2 model that is not quantised.

    Raises CheckpointError.
    """
    model_type = config.get("model_type")
    if not config:
        raise CheckpointError(f"{name} contains no checkpoint (no config.json)", USE_ANOTHER)
    if model_type is None:
        raise CheckpointError(f"{name}/config.json has no model_type; BLIP-2's is blip-2", COPY_AGAIN)
    if model_type not in ("blip-2", "blip_2"):
        raise CheckpointError(
            f"{name} is a {model_type} checkpoint, not BLIP-2", "docs/models.md lists the supported checkpoints."
        )
    if config.get("quantization_config"):
        raise CheckpointError(
            f"{name} was saved in quantised form, which is not supported",
            "Use the checkpoint that it was made from, with --dtype int8 or int4.",
        )


def _check_kind(name: str, actual: Kind, needed: Kind | None, spread: bool) -> None:
    """Raises CheckpointError for the wrong kind, UsageError if there is no language model
    to spread over devices."""
    if needed is not None and needed != actual:
        fault, hint = WRONG_KIND[needed]
        raise CheckpointError(f"{name} {fault}", hint)
    if spread and actual == "retrieval":
        raise UsageError(f"--device-map spreads a language model, and {name} has none", "Leave it out.")


def _hint_without_weights(folder: Path) -> str:
    """What to do about a folder without weights, depending on its other files."""
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if others:
        return f"The folder has {others[0]}; only the names that save_pretrained gives are read."
    if any(folder.glob("*.bin")):
        return "Pickled weights are not loaded; convert them first."
    return "Save or fetch them: the model's save_pretrained writes them."


def _check_generation_config(folder: Path) -> None:
    """Raise CheckpointError for a broken generation_config.json, which transformers would
    ignore."""
    ends = json_object(folder / GENERATION_CONFIG).get("eos_token_id")
    end_ids = ends if isinstance(ends, list) else [ends or 0]
    if not all(isinstance(end, int) for end in end_ids):
        raise CheckpointError(f"{folder / GENERATION_CONFIG}: eos_token_id {ends} is not a token's number", COPY_AGAIN)


def _kind(folder: Path, config: Any) -> Kind:
    """What the checkpoint is made for: from the class it was saved as, or else from its
    weights."""
    for kind, name in CLASSES.items():
        if name in (config.architectures or ()):
            return kind
    has_heads = any(name.startswith("itm_head.") for name in weight_headers(folder))
    return "retrieval" if has_heads else "generation"


def _family(name: str, config: Any, kind: Kind) -> Family | None:
    """The language model's family; None for retrieval, where there is only its config.

    Raises CheckpointError.
    """
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
    """Raise CheckpointError if the language model's tokens are wider than the images'
    projections."""
    text = config.text_config
    tokens, layers = getattr(text, "word_embed_proj_dim", 0), text.hidden_size
    if kind == "generation" and tokens > layers:
        raise CheckpointError(
            f"{name} has tokens of width {tokens} and layers of width {layers}: they cannot be joined",
            "transformers cannot run it either; correct word_embed_proj_dim if config.json is wrong.",
        )
