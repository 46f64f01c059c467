"""The memory that a checkpoint's weights take, from the headers of their files: nothing
is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blip2cli.errors import CheckpointError
from blip2cli.model.checkpoint.explained import explained
from blip2cli.model.checkpoint.files import COPY_AGAIN, check_file, weight_files

if TYPE_CHECKING:
    from blip2cli.model.checkpoint.record import Checkpoint

QFORMER_PREFIXES = ("qformer.", "query_tokens")
"""Prefixes of weights that stay fp32 when the rest is fp16 (transformers keeps the
Q-Former so)."""

Shape = tuple[int, ...]

WeightHeader = tuple[Shape, str]
"""A weight's shape, and the dtype it is stored in (F32, F16, BF16, ...)."""

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}

QUANTIZED_BYTES = {"int8": 1.0, "int4": 0.5}

ONE_SAVE = "The files are of different saves: copy or fetch all of them again, into an empty folder."


@dataclass(frozen=True)
class WeightCounts:
    """How many weights there are, by what becomes of them: the Q-Former's, those of other
    linear layers, and the rest.

    Nearly all of the Q-Former is linear layers.
    """

    qformer: int
    linear: int
    other: int

    @property
    def total(self) -> int:
        return self.qformer + self.linear + self.other

    def bytes(self, precision: str, rest: int = 2) -> int:
        """About how many bytes they take when loaded; `rest` is the size of a weight that
        is not quantised."""
        if precision in QUANTIZED_BYTES:
            return int((self.qformer + self.linear) * QUANTIZED_BYTES[precision] + self.other * rest)
        each = BYTES[precision]
        in_qformer = BYTES["fp32"] if precision == "fp16" else each
        return self.qformer * in_qformer + (self.linear + self.other) * each


def weight_bytes(checkpoint: Checkpoint) -> int:
    """About how many bytes the loaded weights take, in the precision chosen."""
    return count_weights(weight_shapes(checkpoint.folder)).bytes(checkpoint.precision, checkpoint.dtype.itemsize)


def count_weights(shapes: dict[str, Shape]) -> WeightCounts:
    """Count weights by their names and shapes."""
    qformer = linear = other = 0
    for name, shape in shapes.items():
        count = math.prod(shape)
        if name.startswith(QFORMER_PREFIXES):
            qformer += count
        elif len(shape) == 2 and "embed" not in name and "shared" not in name:
            linear += count
        else:
            other += count
    return WeightCounts(qformer, linear, other)


def shown_bytes(number: int) -> str:
    """A number of bytes, as it is shown to the user."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def weight_shapes(folder: Path) -> dict[str, Shape]:
    """Shapes of a folder's weights, by name."""
    return {name: shape for name, (shape, _) in weight_headers(folder).items()}


def weight_headers(folder: Path) -> dict[str, WeightHeader]:
    """Headers of a folder's weights, by name.

    Raises CheckpointError for a file that is missing or broken.
    """
    return headers_in(weight_files(folder))


def headers_in(files: Sequence[Path]) -> dict[str, WeightHeader]:
    """Headers of the weights in some files, by name.

    Raises CheckpointError for a broken file, and for a weight that two files hold: which
    of its values is the model's is not known.
    """
    from safetensors import safe_open

    headers: dict[str, WeightHeader] = {}
    holders: dict[str, Path] = {}
    for path in files:
        check_file(path)
        with explained(f"{path} is cut short or broken", COPY_AGAIN), safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118  # it is not a dict
                weight = file.get_slice(name)
                if holders.setdefault(name, path) != path:
                    raise CheckpointError(f"{path} and {holders[name].name} both hold the weight {name}", ONE_SAVE)
                headers[name] = tuple(weight.get_shape()), weight.get_dtype()
    return headers
