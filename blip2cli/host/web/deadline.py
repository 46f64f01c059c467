"""Deadlines: one time limit for several steps together, also for functions that take no
timeout."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class TooSlowError(TimeoutError):
    """The deadline has passed."""


@dataclass(frozen=True)
class Deadline:
    """The moment `at`, by the monotonic clock, which is `seconds` after the start."""

    at: float
    seconds: float

    @staticmethod
    def after(seconds: float) -> Deadline:
        """The deadline so many seconds from now."""
        return Deadline(time.monotonic() + seconds, seconds)

    def left(self) -> float:
        """The seconds that are left. Raises TooSlowError where none are."""
        seconds_left = self.at - time.monotonic()
        if seconds_left <= 0:
            raise self.passed()
        return seconds_left

    def run(self, function: Callable[[], T]) -> T:
        """The result of a function that takes no timeout.

        Raises its exceptions, and TooSlowError. It runs in its own thread, which is
        abandoned if it takes too long, and does not keep the process alive.
        """
        outcome: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

        def put_outcome() -> None:
            try:
                outcome.put((function(), None))
            except BaseException as error:
                outcome.put((None, error))

        threading.Thread(target=put_outcome, name="blip2-deadline", daemon=True).start()
        try:
            result, error = outcome.get(timeout=self.left())
        except Empty:
            raise self.passed() from None
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # None only where the function gave it

    def passed(self) -> TooSlowError:
        """The error to raise when the deadline has passed."""
        return TooSlowError(f"took longer than {self.seconds:g} s")
