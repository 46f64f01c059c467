"""Processes that read and decode images, and may die of one. Nothing here knows what an image is, or imports torch."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

TIMED_OUT = 1
"""Exit code of a process whose watchdog has ended it."""

AT_ONCE = 8
"""Items that are handed to a process together."""

GRACE = 10.0
"""Seconds that the end of a process may take whose pipe has ended."""


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


def cause(exit_code: int, seconds: float) -> str:
    """What a process died of at an image, as its error."""
    if exit_code == TIMED_OUT:
        return f"timeout: took longer than {seconds:g} s"
    name = signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
    return f"crashed: the decoder died of it ({name})"


def mapped(
    work: Callable[[T], R], items: Iterable[T], workers: int, seconds: float, died: Callable[[T, str], R]
) -> Generator[R]:
    """What `work` gives for each item, in their order.

    Args:
        work: a function of a module, where processes find it; it raises nothing.
        items: taken some ahead.
        workers: how many processes do the work; 0 for this one, where nothing bounds an item's time.
        seconds: after which a process that is still at an item is ended.
        died: what an item gives that a process has died of, from it and the cause.
    """
    if not workers:
        yield from map(work, items)
        return
    every = iter(items)
    processes = [_Process(work, seconds) for _ in range(workers)]
    turn: deque[tuple[_Process[T, R], list[T]]] = deque()
    try:
        for process in processes:
            turn.append((process, process.send(list(islice(every, AT_ONCE)))))
        while turn:
            process, sent = turn.popleft()
            for number, item in enumerate(sent, 1):
                try:
                    yield process.receive()
                except EOFError:
                    yield died(item, process.died_of())
                    process.send(sent[number:])
            if more := list(islice(every, AT_ONCE)):
                turn.append((process, process.send(more)))
    finally:
        for process in processes:
            process.kill()


class _Process(Generic[T, R]):
    """One process and the pipe to it; started when something is sent to it."""

    def __init__(self, work: Callable[[T], R], seconds: float) -> None:
        self.work, self.seconds = work, seconds
        self.running: BaseProcess | None = None
        self.connection: Any = None

    def send(self, items: list[T]) -> list[T]:
        """Hand out items; gives them back."""
        if items:
            if self.running is None:
                self._start()
            with suppress(OSError):  # it is dead, which shows when nothing comes back
                self.connection.send(items)
        return items

    def receive(self) -> R:
        """The next result. Raises EOFError where the process died of its item."""
        try:
            result: R = self.connection.recv()
        except OSError:
            raise EOFError from None
        return result

    def died_of(self) -> str:
        """What it died of."""
        assert self.running is not None
        self.running.join(GRACE)
        exit_code = self.running.exitcode or 0
        self.kill()
        return cause(exit_code, self.seconds)

    def kill(self) -> None:
        """Make an end of it, whatever it is at."""
        if self.running is not None:
            self.running.kill()
            self.running.join()
            self.connection.close()
            self.running = None

    def _start(self) -> None:
        context: Any = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
        self.connection, theirs = context.Pipe()
        self.running = context.Process(target=_serve, args=(theirs, self.work, self.seconds), daemon=True)
        self.running.start()
        theirs.close()


def _serve(connection: Any, work: Callable[[Any], Any], seconds: float) -> None:
    """Do what comes through the pipe, until nobody holds its other end."""
    keep_quiet()
    with suppress(EOFError, BrokenPipeError):
        while True:
            for item in connection.recv():
                with watchdog(seconds):
                    result = work(item)
                connection.send(result)
