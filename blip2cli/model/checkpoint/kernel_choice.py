"""Which int8 kernel a layer uses: measured once on this machine, and kept in the cache folder.

Which library is fastest depends on the processor, the number of rows and the shape: on one with AVX2 only, FBGEMM
needs a fifth of oneDNN's time for a few rows, and the same for many. A file is kept for each combination of versions,
processor and threads. One that is missing, damaged or of something else is measured again; where nothing can be
written, every process measures.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from blip2cli.errors import UsageError
from blip2cli.host.processor import instructions, isa_limit, processor
from blip2cli.model.checkpoint.int8 import KERNELS, QuantizedLinear, available_kernels, check_available, is_exact
from blip2cli.model.checkpoint.linears import NO_POST_OP, PostOp
from blip2cli.model.checkpoint.precision import native_bf16

OVERRIDE = "BLIP2_INT8_KERNEL"
"""The environment variable that names one kernel for all layers."""

CACHE_FOLDER = "BLIP2_CACHE"
"""The environment variable that names the cache folder."""

FORMAT = 2
"""Raised when what is measured, or how it is kept, changes."""

Part = Literal["vision", "qformer", "text"]
Shape = Literal["narrowing", "widening"]

ROWS: Mapping[Part, int] = {"vision": 256, "qformer": 256, "text": 16}
"""Part of the model → rows that it is measured with."""

SIZES: Mapping[Shape, tuple[int, int]] = {"narrowing": (2048, 1024), "widening": (1024, 2048)}
"""Shape of a layer → inputs and outputs that it is measured with."""

GELU: PostOp = ("gelu", "none")
"""What follows the larger one of the vision model's two widening layers."""

TIMES = 4
"""How often a product is measured; the shortest time counts."""

CLEARLY_FASTER = 0.95
"""The share of the first kernel's time that another one must stay below to be chosen instead."""

LARGEST_FILE = 1 << 16
"""Bytes of the largest file that is read."""


@dataclass(frozen=True)
class KernelChoice:
    """The kernel of each part and shape.

    Args:
        kernels: "PART SHAPE" → the name of a kernel.
        source: where the choice is from, as it is shown.
    """

    kernels: Mapping[str, str]
    source: str

    def kernel(self, part: Part, in_features: int, out_features: int) -> str:
        """The kernel of a layer of this size in this part."""
        shape: Shape = "widening" if out_features >= in_features else "narrowing"
        return self.kernels[f"{part} {shape}"]

    def __str__(self) -> str:
        """Kernels with their parts, such as "onednn: vision, qformer; dynamic: text"; a single one alone."""
        cases: dict[str, list[str]] = {}
        for case, kernel in self.kernels.items():
            cases.setdefault(kernel, []).append(case)
        if len(cases) == 1:
            return next(iter(cases))
        return "; ".join(f"{kernel}: {_short(cases[kernel])}" for kernel in cases)


def choose_kernels() -> KernelChoice:
    """The kernels for this machine: from the environment, from the cache folder, or measured now and kept.

    Raises UsageError if there is no int8 kernel, or not the one that the environment names.
    """
    named = os.environ.get(OVERRIDE, "auto")
    if named != "auto":
        return KernelChoice(dict.fromkeys(_cases(), _checked(named)), f"set by {OVERRIDE}")
    check_available()
    available = available_kernels()
    if len(available) == 1:
        return KernelChoice(dict.fromkeys(_cases(), available[0]), "the only one here")
    conditions = _conditions(available)
    file = _file(conditions)
    kept = _read(file, conditions)
    if kept is not None:
        return KernelChoice(kept, f"measured, kept in {file}")
    kernels = _measure(available)
    written = _write(file, {"conditions": conditions, "kernels": kernels})
    return KernelChoice(kernels, f"measured, kept in {file}" if written else f"measured; {file} cannot be written")


def check_kernels() -> None:
    """Raises UsageError if `choose_kernels` would; measures nothing."""
    named = os.environ.get(OVERRIDE, "auto")
    if named == "auto":
        check_available()
    else:
        _checked(named)


def cache_folder() -> Path:
    """The folder of what may be computed again: of BLIP2_CACHE, else in that of the user."""
    named = os.environ.get(CACHE_FOLDER)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path(os.path.expanduser("~"), ".cache"), "blip2cli")


def _checked(name: str) -> str:
    """The name of a kernel that runs here. Raises UsageError."""
    if name not in KERNELS:
        raise UsageError(f"{OVERRIDE} is {name}, which is not an int8 kernel", f"Use auto, {', '.join(KERNELS)}.")
    if not is_exact(name):
        working = ", ".join(["auto", *available_kernels()])
        raise UsageError(f"the int8 kernel {name} of {OVERRIDE} does not run here", f"Use {working}.")
    return name


def _cases() -> list[str]:
    return [f"{part} {shape}" for part in ROWS for shape in SIZES]


def _conditions(available: tuple[str, ...]) -> dict[str, Any]:
    """All that a measurement depends on, as JSON keeps it."""
    return {
        "format": FORMAT,
        "torch": torch.__version__,
        "processor": processor(),
        "instructions": sorted(instructions() or ()),
        "limits": [isa_limit(), torch.backends.cpu.get_cpu_capability()],
        "threads": torch.get_num_threads(),
        "kernels": list(available),
    }


def _file(conditions: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(conditions).encode()).hexdigest()
    return cache_folder() / f"int8-{digest[:16]}.json"


def _read(file: Path, conditions: Mapping[str, Any]) -> dict[str, str] | None:
    """The kernels that a file holds for these conditions; None if it has none that could be used."""
    try:
        with open(file, "rb") as opened:
            kept = json.loads(opened.read(LARGEST_FILE))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(kept, dict) or kept.get("conditions") != conditions:
        return None
    kernels = kept.get("kernels")
    if not isinstance(kernels, dict) or list(kernels) != _cases():
        return None
    return kernels if all(name in conditions["kernels"] for name in kernels.values()) else None


def _write(file: Path, content: Mapping[str, Any]) -> bool:
    """Write a file as a whole; returns whether it could be written."""
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content), encoding="utf-8")
        os.replace(temporary, file)
    except OSError:  # read-only, full, or something else of this name
        with suppress(OSError):
            temporary.unlink()
        return False
    return True


@torch.inference_mode()
def _measure(available: tuple[str, ...]) -> dict[str, str]:
    """The kernel of each case that is fastest here, the first one unless another is clearly faster."""
    seconds: dict[str, dict[str, float]] = {case: {} for case in _cases()}
    generator = torch.Generator().manual_seed(0)
    dtype = torch.bfloat16 if native_bf16() else torch.float32
    for shape, (in_features, out_features) in SIZES.items():
        linear = nn.Linear(in_features, out_features)
        for name in available:
            weight = KERNELS[name](linear)
            for part, rows in ROWS.items():
                x = torch.randn(1, rows, in_features, generator=generator).to(dtype)
                by_image = part == "vision"
                layer = QuantizedLinear(weight, GELU if by_image and shape == "widening" else NO_POST_OP, by_image)
                seconds[f"{part} {shape}"][name] = _seconds(layer, x)
    return {case: _fastest(measured) for case, measured in seconds.items()}


def _fastest(measured: Mapping[str, float]) -> str:
    first = next(iter(measured))
    best = min(measured, key=lambda name: measured[name])
    return best if measured[best] < CLEARLY_FASTER * measured[first] else first


def _seconds(layer: nn.Module, x: torch.Tensor) -> float:
    layer(x)
    taken = []
    for _ in range(TIMES):
        started = time.perf_counter()
        layer(x)
        taken.append(time.perf_counter() - started)
    return min(taken)


def _short(cases: list[str]) -> str:
    """Cases by their parts; a part of which all shapes are named stands alone."""
    parts: dict[str, list[str]] = {}
    for case in cases:
        part, shape = case.split()
        parts.setdefault(part, []).append(shape)
    return ", ".join(part if len(shapes) == len(SIZES) else f"{part} ({shapes[0]})" for part, shapes in parts.items())
