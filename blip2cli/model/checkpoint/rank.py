"""Finding the retrieval checkpoint that ranks what a captioner writes, and whether both
hold the same frozen vision weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip2cli.errors import UsageError
from blip2cli.model.checkpoint.explained import explained
from blip2cli.model.checkpoint.files import COPY_AGAIN, weight_files
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.checkpoint.hub import named_by
from blip2cli.model.checkpoint.record import Checkpoint, Ranker
from blip2cli.model.checkpoint.size import count_weights, weight_headers, weight_shapes

if TYPE_CHECKING:
    from blip2cli.settings import ModelSettings

VISION = "vision_model."
LAST_NORM = "vision_model.post_layernorm."
"""Prefixes of the vision model's weights, and of those of the norm behind its layers. The
paper's training freezes the layers and not this norm, so each checkpoint has its own."""

VISION_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
    "qkv_bias",
)
"""Fields of a vision model's configuration that determine what its layers compute."""


def find_ranker(settings: ModelSettings, captioner: Checkpoint, fetch: bool = True) -> Ranker:
    """Find the checkpoint that the settings name, to run beside a captioner: on its
    device, in its precision.

    Raises CheckpointError for a checkpoint that cannot be used, UsageError for one that
    takes other images, NotCached for one that would have to be downloaded.
    """
    dtype: Any = captioner.precision  # which is one of the names of --dtype
    beside = replace(settings, device=str(captioner.device), devices=None, device_map=None, dtype=dtype)
    with named_by("--rank-model"):
        checkpoint = find_checkpoint(beside, "retrieval", fetch)
    ours, theirs = captioner.images, checkpoint.images
    if (ours.side, ours.fitting) != (theirs.side, theirs.fitting):
        ways = f"images of {theirs.side} pixels, and {captioner.name} of {ours.side}"
        if ours.side == theirs.side:
            ways = f"images that are resized otherwise than for {captioner.name}"
        raise UsageError(
            f"--rank-model {checkpoint.name} takes {ways}",
            "Use itm-vit-g beside opt-2.7b and flan-t5-xl, and itm-vit-g-coco beside those tuned on COCO.",
        )
    return Ranker(checkpoint, ours == theirs and same_vision(captioner, checkpoint))


def same_vision(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether the layers of two vision models compute the same: by the values of their
    weights, whatever dtype they are stored in and whatever the checkpoints are called."""
    configs: list[Any] = [checkpoint.config.vision_config for checkpoint in (one, other)]
    if any(getattr(configs[0], field, None) != getattr(configs[1], field, None) for field in VISION_FIELDS):
        return False
    shapes = [_vision_shapes(checkpoint.folder) for checkpoint in (one, other)]
    if shapes[0] != shapes[1] or not shapes[0]:
        return False
    pairs = zip(_weights(one.folder, shapes[0]), _weights(other.folder, shapes[0]), strict=True)
    return all(bool((ours.float() == theirs.float()).all()) for ours, theirs in pairs)


def ranker_bytes(ranker: Ranker) -> int:
    """About how many bytes a ranker's weights take, beside its captioner's."""
    shapes = weight_shapes(ranker.checkpoint.folder)
    if ranker.shares_vision:
        shared = _vision_shapes(ranker.checkpoint.folder)
        shapes = {name: shape for name, shape in shapes.items() if name not in shared}
    checkpoint = ranker.checkpoint
    return count_weights(shapes).bytes(checkpoint.precision, checkpoint.dtype.itemsize)


def _vision_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The weights of the vision model's layers, without the norm behind them."""
    return {
        name: shape
        for name, (shape, _) in sorted(weight_headers(folder).items())
        if name.startswith(VISION) and not name.startswith(LAST_NORM)
    }


def _weights(folder: Path, names: dict[str, Any]) -> Iterator[Any]:
    """Weights of a folder, in the order of the names, one at a time.

    Raises CheckpointError for a broken file.
    """
    from safetensors import safe_open

    files = weight_files(folder)
    with explained(f"{folder} has a file that is cut short or broken", COPY_AGAIN), ExitStack() as stack:
        opened = [stack.enter_context(safe_open(path, "pt")) for path in files]
        holder = {name: file for file in opened for name in file.keys()}  # noqa: SIM118  # it is not a dict
        for name in names:
            yield holder[name].get_tensor(name)
