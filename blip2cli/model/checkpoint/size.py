"""What a checkpoint's weights take in memory, from their number: nothing is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blip2cli.model.checkpoint.explained import explained
from blip2cli.model.checkpoint.files import AGAIN, check_file, weight_files

if TYPE_CHECKING:
    from blip2cli.model.checkpoint.load import Checkpoint

QFORMER = ("qformer.", "query_tokens")
"""Beginnings of the names of weights that stay fp32 in fp16 (transformers keeps the Q-Former so)."""

Header = tuple[tuple[int, ...], str]
"""A weight's shape, and how it is stored (F32, F16, BF16, ...)."""

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}

QUANTIZED_BYTES = {"int8": 1.0, "int4": 0.5}


@dataclass(frozen=True)
class Weights:
    """How many weights there are, by what becomes of them: the Q-Former's, those of other linear layers, and the rest.

    The Q-Former counts as linear layers, which nearly all of it is.
    """

    qformer: int
    linear: int
    other: int

    @property
    def total(self) -> int:
        return self.qformer + self.linear + self.other

    def bytes(self, precision: str, rest: int = 2) -> int:
        """About how many bytes they take when loaded; `rest` is for each weight that int8 or int4 leaves as it is."""
        if precision in QUANTIZED_BYTES:
            return int((self.qformer + self.linear) * QUANTIZED_BYTES[precision] + self.other * rest)
        each = BYTES[precision]
        return self.qformer * (BYTES["fp32"] if precision == "fp16" else each) + (self.linear + self.other) * each


def weight_bytes(checkpoint: Checkpoint) -> int:
    """About how many bytes the loaded weights take, in the precision chosen."""
    return weights_of(shapes(checkpoint.folder)).bytes(checkpoint.precision, checkpoint.dtype.itemsize)


def weights_of(named: dict[str, tuple[int, ...]]) -> Weights:
    """Weights counted by their names and shapes."""
    counts = {"qformer": 0, "linear": 0, "other": 0}
    for name, shape in named.items():
        linear = len(shape) == 2 and "embed" not in name and "shared" not in name
        kind = "qformer" if name.startswith(QFORMER) else "linear" if linear else "other"
        counts[kind] += math.prod(shape)
    return Weights(**counts)


def shown_bytes(number: int) -> str:
    """A number of bytes, to be read."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a folder's weights, from the headers of its files."""
    return {name: shape for name, (shape, _) in headers(folder).items()}


def headers(folder: Path) -> dict[str, Header]:
    """The headers of a folder's weights, by name. Raises CheckpointError for a file that is missing or broken."""
    return headers_of(weight_files(folder))


def headers_of(files: Sequence[Path]) -> dict[str, Header]:
    """The headers of the weights in some files, by name. Raises CheckpointError for a broken file."""
    from safetensors import safe_open

    found: dict[str, Header] = {}
    for path in files:
        check_file(path)
        with explained(f"{path} is cut short or broken", AGAIN), safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118  # no dict
                weight = file.get_slice(name)
                found[name] = tuple(weight.get_shape()), weight.get_dtype()
    return found
