"""--update: which rows of a grown input an output has already, by their names, and which
are new.

Rows are compared by hashes of 128 bits in sorted arrays: 28 bytes a row, whatever the
length of the names.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import count
from struct import Struct

import numpy as np

from blip2cli.errors import UsageError
from blip2cli.host.terminal import Progress
from blip2cli.outputs.formats import Output
from blip2cli.records import Row
from blip2cli.run.plan import Plan, RowsOfSource
from blip2cli.tasks import Task

HALVES = Struct("QQ")
"""The two halves of a hash."""

Key = tuple[str, str | None]
"""A row's name, and the text that it brings itself."""


class KnownRows:
    """The input rows that an output has, by their keys; equal keys count as often as they
    are there.

    Args:
        keys: the keys in the order of the output, one for each input row.
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        digests = bytearray()
        for key in keys:
            digests += _digest(key)
        halves = np.frombuffer(bytes(digests), dtype=np.uint64).reshape(-1, 2)
        order = np.lexsort((halves[:, 1], halves[:, 0]))
        self._high = array("Q", halves[order, 0].tobytes())
        self._low = array("Q", halves[order, 1].tobytes())
        self._places = array("Q", order.astype(np.uint64).tobytes())
        self._taken = array("I", bytes(4 * len(order)))

    def __len__(self) -> int:
        return len(self._high)

    def take(self, key: Key) -> int | None:
        """The place of a row of this key in the output, which is then taken; None if
        there is none left."""
        high, low = HALVES.unpack(_digest(key))
        first = bisect_left(self._high, high)
        while self._is_at(first, high) and self._low[first] < low:
            first += 1
        at = first + (self._taken[first] if self._is_at(first, high) else 0)
        if not self._is_at(at, high) or self._low[at] != low:
            return None
        self._taken[first] += 1
        return self._places[at]

    def _is_at(self, at: int, high: int) -> bool:
        return at < len(self._high) and self._high[at] == high


def _digest(key: Key) -> bytes:
    name, text = key
    whole = name if text is None else f"{name}\0{text}"
    return blake2b(whole.encode("utf-8", "backslashreplace"), digest_size=16).digest()


def known_rows(task: Task, output: Output) -> KnownRows:
    """The input rows whose output rows are committed."""
    return KnownRows(_keys(task, output) if output.committed.rows else ())


def key_of(task: Task, row: Row) -> Key:
    """The key of an input row."""
    return row.name, (task.text_of(row) or "") if task.own_text else None


def _keys(task: Task, output: Output) -> Iterator[Key]:
    """The keys of the input rows that an output has: the rows of an image stand together."""
    if task.own_text:
        for name, text in output.values("image", task.own_text):
            yield str(name), "" if text is None else str(text)
        return
    previous, rows = None, 0
    for (name,) in output.values("image"):
        rows = rows + 1 if name == previous and rows < task.rows_each else 1
        if rows == 1:
            yield str(name), None
        previous = name


class NewRows:
    """The rows of a plan's source that its output does not have yet, numbered after those
    that it has."""

    def __init__(self, plan: Plan, output: Output) -> None:
        self.task, self.source = plan.task, plan.source
        self.known = known_rows(plan.task, output)
        self.first_index = output.committed.rows
        self.already_there = 0

    def rows(self, progress: Progress) -> Iterator[Row]:
        """The new rows; the others count as done."""
        indices = count(self.first_index)
        for row in self.source.rows():
            if self.known.take(key_of(self.task, row)) is None:
                yield replace(row, index=next(indices))
            else:
                self.already_there += 1
                progress.skip(1)


@dataclass(frozen=True)
class InOutputOrder(RowsOfSource):
    """The rows of a source that an output has, in the output's order.

    Every update adds rows that stand anywhere in the input, so the source is read once
    for each of them.

    Args:
        source: all rows.
        numbers: the number in the source of each row of the output.
    """

    numbers: array[int]

    def rows(self, start: int = 0, before: str | None = None) -> Iterator[Row]:
        """The rows from the start-th on.

        `before` is not compared: rows are found by their names.
        """
        rows: Iterator[tuple[int, Row]] = iter(())
        previous = -1
        for index in range(start, len(self.numbers)):
            number = self.numbers[index]
            if number < previous or index == start:
                rows = enumerate(self.source.rows())
            previous = number
            row = next(row for at, row in rows if at == number)
            yield replace(row, index=index)

    def stretch(self, first: int, stop: int) -> Iterator[Row]:
        return (row for row in self.rows(first) if row.index < stop)

    def count(self) -> int | None:
        return len(self.numbers)


def in_output_order(plan: Plan, output: Output) -> InOutputOrder:
    """The plan's source in the order of its output.

    Raises UsageError if a row of the output is not in the input.
    """
    known = known_rows(plan.task, output)
    numbers = array("q", [-1]) * len(known)
    for number, row in enumerate(plan.source.rows()):
        place = known.take(key_of(plan.task, row))
        if place is not None:
            numbers[place] = number
    if -1 in numbers:
        missing = numbers.index(-1)
        name = next(name for at, (name, _) in enumerate(_keys(plan.task, output)) if at == missing)
        raise UsageError(
            f"the input has changed: {name} is in the output, and no longer in the input",
            "Give the input with it, or leave out --retry-errors.",
        )
    return InOutputOrder(plan.source, numbers)
