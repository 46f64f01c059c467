"""What begins while libraries are imported, which takes seconds: the weights are read from
the disk, processes that decode images and CUDA are started. Nothing here is waited for,
and nothing that fails here is reported: the run itself comes to it later."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from blip2cli.errors import CheckpointError
from blip2cli.host.memory import free_ram
from blip2cli.host.processor import cores
from blip2cli.images.ready import FEW, ReadyProcesses
from blip2cli.model.checkpoint.files import weight_files
from blip2cli.model.checkpoint.local import early_image_settings, local_folder
from blip2cli.run.plan import Plan
from blip2cli.settings import Kind, ModelSettings

READ_AT_ONCE = 64 << 20
"""Bytes that the system is asked for in one call, so that a thread ends soon when the
program does."""


def read_weights(settings: ModelSettings, kind: Kind) -> threading.Thread | None:
    """Let the system read a checkpoint's weights into memory, where it keeps files.

    None if there is nothing to read: the checkpoint is not on this machine yet, or does
    not fit in memory. torch is not needed.
    """
    name = settings.name(kind)
    if name == "tiny" or not hasattr(os, "posix_fadvise"):
        return None
    try:
        files = weight_files(local_folder(settings, kind))
        too_large = sum(file.stat().st_size for file in files) > free_ram()
    except (CheckpointError, OSError):
        return None
    return None if too_large or not files else _started(lambda: _read(files), daemon=True)


def _read(files: Sequence[Path]) -> None:
    for file in files:
        with open(file, "rb") as opened:
            for at in range(0, os.fstat(opened.fileno()).st_size, READ_AT_ONCE):
                os.posix_fadvise(opened.fileno(), at, READ_AT_ONCE, os.POSIX_FADV_WILLNEED)


def start_processes(plan: Plan) -> ReadyProcesses:
    """Start the processes that will decode images for a model in this process.

    None start for few rows, or if it is not known how many there are, or how the
    checkpoint's images are read.
    """
    ready = ReadyProcesses()
    settings = plan.job.model
    if settings.devices is not None or not plan.task.needs.images:
        return ready
    workers = _workers(plan)
    with suppress(CheckpointError, OSError):
        images = early_image_settings(settings, plan.job.kind) if workers else None
        if images is not None:
            from blip2cli.run.reading import reading_for

            ready.start(reading_for(images, settings), workers, settings.image_timeout)
    return ready


def _workers(plan: Plan) -> int:
    """How many processes will decode, as far as this is known before rows are read."""
    workers = plan.job.model.workers
    if workers is not None:
        return workers
    return 0 if plan.source.may_wait or (plan.total is not None and plan.total < FEW) else cores()


def start_cuda(settings: ModelSettings) -> threading.Thread | None:
    """Start the CUDA device that a model in this process will use, once torch is
    imported.

    None if the model will be elsewhere.
    """
    if settings.devices is not None or not settings.device.startswith(("auto", "cuda")):
        return None
    return _started(lambda: _touch(settings.device), daemon=False)


def _touch(device: str) -> None:
    import torch

    if torch.cuda.is_available():
        torch.zeros(1, device="cuda" if device == "auto" else device)


def _started(work: Callable[[], None], daemon: bool) -> threading.Thread:
    """A thread that does the work, and keeps quiet about what fails. The program does not
    wait for a daemon when it ends."""

    def attempt() -> None:
        with suppress(Exception):
            work()

    thread = threading.Thread(target=attempt, name="warm-up", daemon=daemon)
    thread.start()
    return thread
