"""Measuring: `make bench` (against reference loops) and `blip2 bench` (the user's own
machine and model).

Here are the settings of `blip2 bench`, and how they are parsed; nothing heavy is
imported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_type_hints

from blip2cli.errors import UsageError
from blip2cli.settings import DEFAULT_MODEL, ModelName, ModelSettings, Opt, Options, check_device

BATCH_SIZES = (1, 4, 8, 16, 32, 64)


def dtypes_named(listed: str) -> tuple[str, ...]:
    """The precisions of --dtypes, without repetitions. Raises UsageError."""
    choices: Any = get_type_hints(ModelSettings)["dtype"]
    precisions = [choice for choice in get_args(choices) if choice != "auto"]
    named = tuple(dict.fromkeys(name.strip() for name in listed.split(",")))
    if not set(named) <= set(precisions):
        raise UsageError(f"--dtypes {listed} is not a list of precisions", f"Choose from {','.join(precisions)}.")
    return named


def batch_sizes_named(listed: str) -> tuple[int, ...]:
    """The sizes of --batch-sizes, the smallest first, without repetitions.

    Raises UsageError.
    """
    named = [size.strip() for size in listed.split(",")]
    if not all(re.fullmatch(r"0*[1-9]\d{0,5}", size, re.ASCII) for size in named):
        raise UsageError(
            f"--batch-sizes {listed} is not a list of numbers above 0", "Separate them with commas: 1,4,16."
        )
    return tuple(sorted({int(size) for size in named}))


@dataclass(frozen=True)
class BenchSettings(Options):
    """What is measured; no `dtypes` means those of the device."""

    model: ModelName = DEFAULT_MODEL
    device: Annotated[str, Opt("auto, cpu, cuda, cuda:N or mps.", metavar="DEVICE", parse=check_device)] = "auto"
    dtypes: Annotated[
        tuple[str, ...] | None,
        Opt("Precisions to try; by default those of the device.", metavar="A,B,...", parse=dtypes_named),
    ] = None
    batch_sizes: Annotated[
        tuple[int, ...],
        Opt("Batch sizes to try. [default: 1,4,8,16,32,64]", metavar="N,N,...", parse=batch_sizes_named),
    ] = BATCH_SIZES
    images: Annotated[
        int, Opt("Photographs, generated, to caption in each trial.", metavar="N", min=1, max=100_000)
    ] = 64
    tokens: Annotated[int, Opt("Tokens to write for each photograph.", metavar="N", min=1, max=10_000)] = 10
