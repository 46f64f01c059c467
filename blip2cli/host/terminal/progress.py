"""The progress of a run on stderr, and the lines above it."""

from __future__ import annotations

import sys
import time
from typing import Any

from blip2cli.host.terminal.streams import unguarded
from blip2cli.host.terminal.text import printable

PLAIN_EVERY = 10.0
"""Seconds between progress lines if stderr is not a terminal."""

_bars: list[Any] = []
"""The redrawn line of progress, while it is shown."""


class Progress:
    """Images done, images a second, errors and time left: one redrawn line on a terminal, else a line now and then.

    The clock starts with the first images, because the time to load a model or start a cluster says nothing about
    the rest.
    """

    def __init__(self, total: int | None, done: int, quiet: bool) -> None:
        self.total, self.done, self.quiet, self.errors = total, done, quiet, 0
        self.shown = time.monotonic()
        self.first, self.began = done, 0.0
        self.bar: Any = None
        if not quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(
                total=total, initial=done, unit=" images", dynamic_ncols=True, file=unguarded(), leave=False
            )
            _bars.append(self.bar)

    def advance(self, rows: int, errors: int) -> None:
        """Count more finished rows, and those of them with errors."""
        self.done += rows
        self.errors += errors
        first = not self.began
        if first:
            self.first, self.began = self.done, time.monotonic()
        if self.bar is not None:
            if errors:
                self.bar.set_postfix_str(f"{self.errors} errors", refresh=False)
            if first:
                self.bar.initial = self.bar.n = self.bar.last_print_n = self.done
                self.bar.unpause()
                self.bar.refresh()
            else:
                self.bar.update(rows)
        elif not self.quiet and time.monotonic() - self.shown >= PLAIN_EVERY:
            self.shown = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Remove the redrawn line."""
        if self.bar is not None:
            self.bar.close()
            _bars.clear()

    def _line(self) -> str:
        rate = (self.done - self.first) / max(time.monotonic() - self.began, 1e-9)
        of = f" of {self.total:,}" if self.total is not None else ""
        speed = f" {rate:.1f} images/s," if rate else ""
        time_left = f", {clock((self.total - self.done) / rate)} left" if self.total is not None and rate else ""
        return f"{self.done:,}{of} images,{speed} {self.errors:,} errors{time_left}"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, seconds_left = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds_left:02}" if hours else f"{minutes}:{seconds_left:02}"


def tell(line: str) -> None:
    """One line on stderr, escaped, above the progress line if it is shown."""
    if _bars:
        _bars[-1].write(printable(line), file=unguarded())
    else:
        print(printable(line), file=sys.stderr)
