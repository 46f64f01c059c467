"""What a checkpoint's image processor does to images, from its settings.

Matches transformers' `BlipImageProcessorPil`. A setting that is not supported is refused
by name. So is one that gives images of another size than the model's: without an error,
the model would read them at the wrong positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blip2cli.errors import CheckpointError
from blip2cli.model.checkpoint.files import json_object
from blip2cli.records import Fitting

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

CHANNELS = 3

LARGEST_SIDE = 1 << 14
"""Pixels. BLIP-2's images have 224, 364 or 384."""

FILTERS = range(6)
"""Pillow's numbers of resampling filters: nearest, Lanczos, bilinear, bicubic, box,
Hamming."""

PROCESSOR_NAMES = ("BlipImageProcessor", "BlipImageProcessorFast", "BlipImageProcessorPil")
"""Names under which transformers saves BLIP-2's image processor."""

COPY_PROCESSOR = "Copy the processor of the checkpoint that this one was made from."


@dataclass(frozen=True)
class ImageSettings:
    """What the checkpoint's image processor says.

    Args:
        side: of the square of pixels that the model takes.
        mean: of each channel; subtracted if `normalize`.
        std: standard deviation of each channel; divided by if `normalize`.
        rescale: factor for pixels of 0 to 255; None if they are left as they are.
        normalize: whether mean and standard deviation are used.
        fitting: how images are brought to the square.
    """

    side: int
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    rescale: float | None = 1 / 255
    normalize: bool = True
    fitting: Fitting = field(default_factory=Fitting)


@dataclass(frozen=True)
class SavedSettings:
    """The settings in a file, each read as its type.

    All methods raise CheckpointError, naming file and setting.
    """

    path: Path
    values: Mapping[str, Any]

    def flag(self, name: str, default: bool) -> bool:
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.refused(name, "is not true or false")
        return default if value is None else value

    def number(self, name: str, default: float) -> float:
        value = self.values.get(name)
        if value is None:
            return default
        if not _is_number(value):
            raise self.refused(name, "is not a number")
        return float(value)

    def channels(self, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
        """A number for each channel; the file may have one number for all."""
        value = self.values.get(name)
        if value is None:
            return default
        values = [value] * CHANNELS if _is_number(value) else value
        if not isinstance(values, list) or len(values) != CHANNELS or not all(map(_is_number, values)):
            raise self.refused(name, "is not a number for each of three channels")
        return tuple(map(float, values))

    def size(self, name: str, square: bool) -> dict[str, int] | None:
        """A size as transformers takes it: a number, a list of height and width, or an
        object; None if unset."""
        value = self.values.get(name)
        if value is None:
            return None
        if _is_number(value):
            value = {"height": value, "width": value} if square else {"shortest_edge": value}
        elif isinstance(value, list) and len(value) == 2:
            value = dict(zip(("height", "width"), value, strict=True))
        edges = value if isinstance(value, dict) else {}
        edges = {key: edge for key, edge in edges.items() if edge is not None}
        if not edges or not all(isinstance(edge, int) and 0 < edge <= LARGEST_SIDE for edge in edges.values()):
            raise self.refused(name, "is not a size in pixels")
        return edges

    def refused(self, name: str, why: str, hint: str = COPY_PROCESSOR) -> CheckpointError:
        return CheckpointError(f"{self.path}: {name} {self.values.get(name)} {why}", hint)


def image_settings(folder: Path, side: int) -> ImageSettings:
    """The settings of a folder's image processor, whose images must have the model's side
    in pixels.

    They are in processor_config.json (transformers 5) or preprocessor_config.json. The
    defaults are those of transformers' class, but for the size, which is then the
    model's. Raises CheckpointError.
    """
    saved = _saved_settings(folder)
    kind = saved.values.get("image_processor_type")
    if kind is not None and kind not in PROCESSOR_NAMES:
        raise saved.refused("image_processor_type", "is not supported; BLIP-2's is BlipImageProcessor")
    normalize = saved.flag("do_normalize", True)
    std = saved.channels("image_std", CLIP_STD)
    if normalize and 0 in std:
        raise saved.refused("image_std", "has a standard deviation of zero")
    return ImageSettings(
        side=side,
        mean=saved.channels("image_mean", CLIP_MEAN),
        std=std,
        rescale=saved.number("rescale_factor", 1 / 255) if saved.flag("do_rescale", True) else None,
        normalize=normalize,
        fitting=_fitting(saved, side),
    )


def _saved_settings(folder: Path) -> SavedSettings:
    path = folder / "processor_config.json"
    inner = json_object(path).get("image_processor")
    if inner is None:
        path = folder / "preprocessor_config.json"
        inner = json_object(path)
    if not isinstance(inner, dict):
        raise CheckpointError(f"{path}: image_processor is not a JSON object", COPY_PROCESSOR)
    return SavedSettings(path, inner)


def _fitting(saved: SavedSettings, side: int) -> Fitting:
    size = saved.size("size", saved.flag("default_to_square", True))
    square = {"height": side, "width": side}
    fits = f"is not the model's size, {side} x {side} pixels"
    resize, crop = saved.flag("do_resize", True), saved.flag("do_center_crop", False)
    if crop and saved.size("crop_size", square=True) != square:
        raise saved.refused("crop_size", fits)
    if not crop and not resize:
        raise saved.refused("do_resize", f"does not resize images, and the model takes {side} x {side} pixels")
    if saved.flag("do_pad", False) and saved.size("pad_size", square=True) not in (None, square):
        raise saved.refused("pad_size", fits)
    if resize and size is not None:
        _check_size(saved, size, square, crop)
    edges = size if resize and size is not None and size != square else {}
    return Fitting(
        resize=resize,
        size=(edges["height"], edges["width"]) if "height" in edges else None,
        shortest_edge=edges.get("shortest_edge"),
        longest_edge=edges.get("longest_edge"),
        resample=_filter(saved),
        crop=crop,
        convert_rgb=saved.flag("do_convert_rgb", True),
    )


def _filter(saved: SavedSettings) -> int:
    """Pillow's number of the resampling filter."""
    resample = saved.values.get("resample")
    if resample is None:
        return Fitting().resample
    if isinstance(resample, bool) or resample not in FILTERS:
        raise saved.refused("resample", "is not one of Pillow's filters, 0 to 5")
    return int(resample)


def _check_size(saved: SavedSettings, size: dict[str, int], square: dict[str, int], crop: bool) -> None:
    """Raise CheckpointError for a size that is not supported, or that does not give the
    model's square."""
    if size.keys() not in ({"height", "width"}, {"shortest_edge"}, {"shortest_edge", "longest_edge"}):
        raise saved.refused("size", "is not supported; give height and width, or shortest_edge")
    if not crop and size != square:
        side = square["height"]
        hint = f"Copy the model's own processor; or, if it was trained so, correct the size to {side} x {side}."
        raise saved.refused("size", f"is not the model's size, {side} x {side} pixels", hint)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
