"""The input cut into stretches, each of which becomes one shard; which of them are done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Stretches:
    """Stretch n is the input rows from n · size on, `size` of them but for the last; `rows` is that of all.

    `done` are the finished ones: first and last of each run of them, in order. Those left are counted too, from 0.
    """

    rows: int
    size: int
    done: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return -(-self.rows // self.size)

    @property
    def left(self) -> int:
        """How many are not done."""
        return len(self) - sum(last - first + 1 for first, last in self.done)

    def bounds(self, number: int) -> tuple[int, int]:
        """The input row that a stretch begins with, and the one behind it."""
        return number * self.size, min((number + 1) * self.size, self.rows)

    def unfinished(self, place: int) -> int:
        """The number of the place-th of those left."""
        for first, last in self.done:
            if place < first:
                break
            place += last - first + 1
        return place

    def with_done(self, number: int) -> Stretches:
        """The same with one more done."""
        return replace(self, done=tuple(_joined(sorted([*self.done, (number, number)]))))

    def finished(self) -> Iterator[int]:
        """The numbers of those that are done."""
        return (number for first, last in self.done for number in range(first, last + 1))


def _joined(runs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Runs that touch or overlap, made one."""
    joined: list[tuple[int, int]] = []
    for first, last in runs:
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined
