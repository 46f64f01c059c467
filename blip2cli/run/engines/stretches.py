"""The input divided into ranges ("stretches"), each of which becomes one shard, and which
of them are done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Stretches:
    """Stretch n is the input rows from n · size on, `size` of them except for the last;
    `rows` counts all rows.

    `done` are the finished stretches, as the first and last of each interval, in order.
    Unfinished ones are numbered too, from 0.
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
        """The first input row of a stretch, and the first one after it."""
        return number * self.size, min((number + 1) * self.size, self.rows)

    def unfinished(self, position: int) -> int:
        """The number of the position-th of those left."""
        for first, last in self.done:
            if position < first:
                break
            position += last - first + 1
        return position

    def with_done(self, number: int) -> Stretches:
        """A copy with one more stretch done."""
        return replace(self, done=tuple(_joined(sorted([*self.done, (number, number)]))))

    def finished(self) -> Iterator[int]:
        """The numbers of those that are done."""
        return (number for first, last in self.done for number in range(first, last + 1))


def _joined(runs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Intervals that touch or overlap, joined."""
    joined: list[tuple[int, int]] = []
    for first, last in runs:
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined
