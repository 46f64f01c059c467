"""A clock for waiting for another process."""

from __future__ import annotations

import time

TICK = 0.25
"""Seconds between looks at the clock."""


class Clock:
    """Seconds in which a process was waited for.

    None pass while all are stopped by Ctrl-Z, or the machine sleeps.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.passed, self.looked = 0.0, time.monotonic()

    def seconds(self) -> float:
        now = time.monotonic()
        self.passed += min(now - self.looked, 2 * TICK)
        self.looked = now
        return self.passed
