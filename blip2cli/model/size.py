"""What a checkpoint's weights take, from the headers of its files: nothing is loaded."""

from __future__ import annotations

import math
from pathlib import Path

from blip2cli.model.checkpoint import DTYPES, Checkpoint

FULL = ("qformer.", "query_tokens")
"""Beginnings of the names of weights that stay fp32 in fp16 (transformers keeps the Q-Former so)."""

QUANTIZED_BYTES = {"int8": 1.0, "int4": 0.5}


def weight_bytes(checkpoint: Checkpoint) -> int:
    """About how many bytes the loaded weights take, in the precision chosen."""
    rest = checkpoint.dtype.itemsize
    total = 0.0
    for name, shape in _shapes(checkpoint.folder):
        linear = len(shape) == 2 and "embed" not in name and "shared" not in name
        if name.startswith(FULL):
            each: float = DTYPES["fp32"].itemsize if checkpoint.precision == "fp16" else rest
        else:
            each = QUANTIZED_BYTES.get(checkpoint.precision, rest) if linear else rest
        total += each * math.prod(shape)
    return int(total)


def _shapes(folder: Path) -> list[tuple[str, tuple[int, ...]]]:
    from safetensors import safe_open

    found: list[tuple[str, tuple[int, ...]]] = []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "np") as file:
            found += [(name, tuple(file.get_slice(name).get_shape())) for name in file.keys()]  # noqa: SIM118  # no dict
    return found
