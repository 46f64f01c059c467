"""What a piece of a benchmark costs: its seconds, and the memory of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def timed(function: Callable[[], T]) -> tuple[float, T]:
    """The seconds of a call, and its result."""
    started = time.perf_counter()
    value = function()
    return time.perf_counter() - started, value


@contextmanager
def peak_of_memory() -> Iterator[list[int]]:
    """The sampled peak of this process's own memory in bytes, without mapped files and what it had before."""
    before, highest, over = own_memory(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            highest.append(own_memory() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield highest
    finally:
        over.set()
        watcher.join()


def own_memory() -> int:
    """Bytes of this process that belong to no file (Linux)."""
    return _status("RssAnon")


def peak_of_process() -> int:
    """The most memory that this process has had, in bytes, with mapped files (Linux)."""
    return _status("VmHWM")


def _status(name: str) -> int:
    """A line of what Linux says of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
