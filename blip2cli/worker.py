"""Processes that read and decode images, and may die of one. Nothing here knows what an image is, or imports torch."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

TIMED_OUT = 1
"""Exit code of a process whose watchdog has ended it."""

AT_ONCE = 32
"""Items that are handed out together, for each process."""


def keep_quiet() -> None:
    """Leave stderr and Ctrl-C to the parent: libtiff tells the terminal what it dislikes, and errors are rows here."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


@contextmanager
def watchdog(seconds: float | None) -> Iterator[None]:
    """End this process, whatever it hangs in, when the seconds have passed."""
    if seconds is None:
        yield
        return
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def mapped(
    work: Callable[[T], R], items: Iterable[T], workers: int, seconds: float, died: Callable[[T], R]
) -> Generator[R]:
    """What `work` gives for each item, in their order.

    Args:
        work: a function of a module, where processes find it; it raises nothing.
        items: taken some ahead.
        workers: how many processes do the work; 0 for this one, where nothing bounds an item's time.
        seconds: after which a process that is still at an item is ended.
        died: what an item gives that a process has died of.
    """
    if not workers:
        yield from map(work, items)
        return
    every = iter(items)
    with _Processes(workers, work, seconds) as many, _Processes(1, work, seconds) as one:
        while group := list(islice(every, AT_ONCE * workers)):
            results = many.map(group)
            if results is None:  # whose fault it was shows when each is alone
                results = [(one.map([item]) or [died(item)])[0] for item in group]
            yield from results


class _Processes(Generic[T, R]):
    """A pool of processes for one function, made anew when one of them has died."""

    def __init__(self, number: int, work: Callable[[T], R], seconds: float) -> None:
        self.number = number
        self.work = partial(_watched, work, seconds)
        self.pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Processes[T, R]:
        return self

    def map(self, items: Sequence[T]) -> list[R] | None:
        """What becomes of the items; None where a process died."""
        if self.pool is None:
            context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
            self.pool = ProcessPoolExecutor(self.number, context, keep_quiet)
        try:
            return list(self.pool.map(self.work, items))
        except BrokenProcessPool:
            self._end()
            return None

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
            self.pool = None


def _watched(work: Callable[[T], R], seconds: float, item: T) -> R:
    with watchdog(seconds):
        return work(item)
