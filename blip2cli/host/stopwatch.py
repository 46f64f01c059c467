"""Seconds spent in each phase of a run, each second counted once."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from blip2cli.host.stepping import taken_within

T = TypeVar("T")

_started = [time.perf_counter()]
"""When the command was started."""


def restart_clock() -> None:
    """Count the seconds of a command from now on."""
    _started[0] = time.perf_counter()


def since_start() -> float:
    """Seconds since the command was started: what every closing line gives."""
    return time.perf_counter() - _started[0]


class Stopwatch:
    """Phases may be nested: the inner one's seconds are not the outer one's."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        phases = dict.fromkeys(("reading", "encoding", "decoding", "writing"), 0.0)
        self.seconds: defaultdict[str, float] = defaultdict(float, phases)
        self._inside: list[str] = []
        self._since = self.started

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.started

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._book()
        self._inside.append(name)
        try:
            yield
        finally:
            self._book()
            self._inside.pop()

    def timed(self, name: str, items: Iterator[T]) -> Iterator[T]:
        """The items; the time it takes to get each is the phase's."""
        return taken_within(lambda: self.phase(name), items)

    def _book(self) -> None:
        now = time.perf_counter()
        if self._inside:
            self.seconds[self._inside[-1]] += now - self._since
        self._since = now
