"""The progress of a command on stderr, and the lines above it."""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from blip2cli.host.stopwatch import since_start
from blip2cli.host.terminal.streams import unguarded
from blip2cli.host.terminal.text import GLUE, figure, printable, wrapped

T = TypeVar("T")

PLAIN_EVERY = 10.0
"""Seconds between progress lines if stderr is not a terminal."""

DRAWN_EVERY = 0.5
"""Seconds between two drawings of the line on a terminal."""

MEANINGFUL = 3.0
"""Seconds of work before a speed is shown, and the time left."""

WINDOW = 60.0
"""Seconds of work that a speed is the average of."""

_shown: list[Progress] = []
"""The progress whose line is redrawn, while it is."""


class Progress:
    """What is loaded, then images done, seconds since the command was started, speed, errors and time left.

    One redrawn line on a terminal. Elsewhere, and where rows go into a pipe, whose reader may write to the same
    terminal: a line when loading begins, and another now and then.
    """

    def __init__(self, quiet: bool, rows_to_stdout: bool = False) -> None:
        """`rows_to_stdout` says whether the command writes its rows there."""
        self.quiet = quiet
        self.task, self.unit = "", "images"
        self.total: int | None = None
        self.done = self.skipped = self.errors = 0
        self.speed = Speed()
        self.told = time.monotonic()
        self.bar: Any = None
        self._closed = threading.Event()
        if not quiet and sys.stderr.isatty() and not (rows_to_stdout and _is_pipe(sys.stdout)):
            from tqdm import tqdm

            self.bar = tqdm(total=1, bar_format="{desc}", dynamic_ncols=True, file=unguarded(), leave=False)
            _shown.append(self)
            threading.Thread(target=self._redraw, name="progress", daemon=True).start()

    def load(self, name: str) -> None:
        """Say that a model is being loaded."""
        self.task = f"Loading {printable(name)}"
        if self.bar is None and not self.quiet:
            print(self.task, file=sys.stderr, flush=True)
        self._draw()

    def begin(self, total: int | None, done: int, unit: str = "images") -> None:
        """Count images from now on, or another unit, of which some were done before."""
        self.task, self.unit = "", unit
        self.total, self.done, self.errors, self.speed = total, done + self.skipped, 0, Speed()
        self.told = time.monotonic()
        self._draw()

    def counted(self, items: Iterable[T], total: int, unit: str) -> Iterator[T]:
        """The items, counted on a terminal as a part of what is being loaded."""
        self.total, self.done, self.unit = total, 0, unit
        for item in items:
            yield item
            self.done += 1
        self.total = None

    def advance(self, rows: int, errors: int) -> None:
        """Count more finished rows, and those of them with errors."""
        self.done += rows
        self.errors += errors
        self.speed.add(rows)
        if self.bar is None and not self.quiet and time.monotonic() - self.told >= PLAIN_EVERY:
            self.told = time.monotonic()
            print(self._counts() + self._rest(), file=sys.stderr, flush=True)

    def reach(self, done: int, total: int) -> None:
        """Count up to so many, and correct how many there will be."""
        self.total = total
        self.advance(done - self.done, 0)

    def skip(self, rows: int) -> None:
        """Count rows for which nothing has to be done, also before the others are counted."""
        self.skipped += rows
        self.done += rows

    def close(self) -> None:
        """Remove the redrawn line."""
        self._closed.set()
        if self.bar is not None and self in _shown:
            _shown.remove(self)
            self.bar.close()

    def write(self, line: str) -> None:
        """Write a line above the redrawn one."""
        self.bar.write(line, file=unguarded())

    def _redraw(self) -> None:
        while not self._closed.wait(DRAWN_EVERY):
            self._draw()

    def _draw(self) -> None:
        if self.bar is None or self._closed.is_set():
            return
        if self.total:
            share = min(self.done / self.total, 1.0)
            task = f"{self.task} " if self.task else ""
            before, after = f"{task}{100 * share:3.0f}% |", f"| {self._counts()}{self._rest()}"
            self.bar.bar_format = "{desc}{bar}{unit}"
            self.bar.total, self.bar.n = 1.0, share
        else:
            before, after = self.task or self._counts(), self._rest()
            self.bar.bar_format = "{desc}{unit}"
        self.bar.desc, self.bar.unit = before, after
        self.bar.refresh()

    def _counts(self) -> str:
        of = f" of {self.total:,}" if self.total is not None else ""
        return f"{self.done:,}{of} {self.unit}"

    def _rest(self) -> str:
        """Seconds since the start and, for images, the speed, errors and time left."""
        parts = ["", clock(since_start())]
        rate = None if self.task else self.speed.rate()
        if rate:
            parts.append(f"{figure(rate)} {self.unit}/s")
        if not self.task:
            parts.append(f"{self.errors:,} {'error' if self.errors == 1 else 'errors'}")
        if rate and self.total is not None:
            parts.append(f"{clock((self.total - self.done) / rate)} left")
        return ", ".join(parts)


class Speed:
    """Images a second in the last WINDOW seconds.

    The first images only start its clock: the time that they took is that of loading a model or starting a cluster.
    """

    def __init__(self) -> None:
        self.images = 0
        self._marks: deque[tuple[float, int]] = deque()

    def add(self, images: int) -> None:
        """Count more images."""
        self.images += images
        now = time.monotonic()
        if not self._marks or now - self._marks[-1][0] >= WINDOW / 60:
            self._marks.append((now, self.images))
        while len(self._marks) > 2 and now - self._marks[1][0] > WINDOW:
            self._marks.popleft()

    def rate(self) -> float | None:
        """The speed; None before it means something."""
        if not self._marks:
            return None
        began, before = self._marks[0]
        seconds, images = time.monotonic() - began, self.images - before
        return images / max(seconds, 1e-9) if images and seconds >= MEANINGFUL else None


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, seconds_left = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds_left:02}" if hours else f"{minutes}:{seconds_left:02}"


def tell(line: str, folded: bool = True) -> None:
    """One line on stderr, escaped, above the progress line if it is shown.

    On a terminal it is wrapped between words, unless it is not to be `folded`, such as a command to copy.
    """
    text = GLUE.join(map(printable, line.split(GLUE)))
    if folded and sys.stderr.isatty():
        indent = len(text) - len(text.lstrip()) + 2
        text = "\n".join(wrapped(text, _columns(), indent))
    text = text.replace(GLUE, " ")
    if _shown:
        _shown[-1].write(text)
    else:
        print(text, file=sys.stderr)


@contextmanager
def loading(name: str, quiet: bool = False, drawn_only: bool = False) -> Iterator[None]:
    """While inside, say that something is being loaded.

    What takes long only if there is much of it is `drawn_only`: on a terminal, and not where rows go into a pipe.
    """
    shown = Progress(quiet, rows_to_stdout=drawn_only)
    if shown.bar is not None or not drawn_only:
        shown.load(name)
    try:
        yield
    finally:
        shown.close()


def counted(items: Iterable[T], total: int, unit: str) -> Iterator[T]:
    """The items, counted in the progress that is shown, if there is any."""
    return _shown[-1].counted(items, total, unit) if _shown else iter(items)


def remove_progress() -> None:
    """Remove the line that is redrawn, if there is one: the process ends."""
    for progress in list(_shown):
        progress.close()


def _columns() -> int:
    """The width of the terminal behind stderr."""
    given = os.environ.get("COLUMNS", "")
    try:
        return int(given) if given.isdigit() and int(given) else os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return 80


def _is_pipe(stream: Any) -> bool:
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
