"""`blip2 bench`: captions a second of one checkpoint on the user's own machine, by precision and batch size."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from blip2cli.commands.bench import BenchSettings
from blip2cli.commands.bench.machine import describe_machine
from blip2cli.commands.bench.material import save_photos
from blip2cli.commands.bench.ours import Ours
from blip2cli.errors import Blip2Error, reason
from blip2cli.host.terminal import TablePrinter, figure, hush_libraries, show_warning
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.settings import ModelSettings


@dataclass(frozen=True)
class Measurement:
    """One measurement."""

    dtype: str
    batch_size: int
    images_per_second: float
    layers: str


def measure_and_show(settings: BenchSettings) -> None:
    """Measure everything, print a row for each, and recommend the fastest. Raises Blip2Error if none can run."""
    dtypes = _dtypes(settings)
    hush_libraries()
    find_checkpoint(ModelSettings(model=settings.model, device=settings.device))  # which raises if there is none
    print(f"{describe_machine()}\n{settings.model}: {settings.images} images, {settings.tokens} tokens each\n")
    shown = TablePrinter(["dtype", "batch size", "images/s"], ["batch size", "images/s"])
    tries: list[Measurement] = []
    with tempfile.TemporaryDirectory() as temporary:
        photos = save_photos(Path(temporary) / "photos", settings.images, (640, 480))
        for dtype in dtypes:
            try:
                for tried in _tries(photos, dtype, settings):
                    tries.append(tried)
                    shown.print_rows([([dtype, str(tried.batch_size), figure(tried.images_per_second)], None)])
            except Exception as error:  # if one precision fails, the others are still tried
                if isinstance(error, Blip2Error) and len(dtypes) == 1:
                    raise
                shown.print_rows([([dtype, "", ""], _reason(error))])
            gc.collect()
    if not tries:
        raise Blip2Error(f"{settings.model} cannot run here with any of {', '.join(dtypes)} here", "Try --dtypes fp32.")
    best = max(tries, key=lambda tried: tried.images_per_second)
    for dtype, layers in {tried.dtype: tried.layers for tried in tries}.items():
        print(f"\nLinear layers in {dtype}: {layers}", end="")
    print(f"\n\nFastest: --dtype {best.dtype} --batch-size {best.batch_size}")


def _reason(error: Exception) -> str:
    if isinstance(error, Blip2Error):
        return error.message
    return reason(error, named=True)


def _tries(photos: Path, dtype: Any, settings: BenchSettings) -> Iterator[Measurement]:
    """Growing batch sizes, until two in a row are slower than the best."""
    ours = Ours(settings.model, dtype, 1, settings.device)
    if ours.model.checkpoint.caution:
        show_warning(ours.model.checkpoint.caution)
    lengths = [settings.tokens] * settings.images
    best, slower = 0.0, 0
    for size in settings.batch_sizes:
        ours.write(photos, [None], lengths, size)
        started = time.perf_counter()
        ours.write(photos, [None], lengths, size)
        rate = settings.images / (time.perf_counter() - started)
        slower = slower + 1 if rate < best else 0
        best = max(best, rate)
        yield Measurement(dtype, size, rate, ours.layers)
        if slower == 2:
            return


def _dtypes(settings: BenchSettings) -> tuple[str, ...]:
    if settings.dtypes:
        return settings.dtypes
    cuda = settings.device.startswith("cuda") or (settings.device == "auto" and torch.cuda.is_available())
    return ("fp16", "bf16", "int8") if cuda else ("fp32", "bf16", "int8")
