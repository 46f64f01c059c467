"""The limits of an exchange, and the count of what it takes."""

from __future__ import annotations

from dataclasses import dataclass

from blip2cli.host.web.deadline import Deadline
from blip2cli.host.web.faults import too_large

OVERHEAD = 1 << 20
"""Bytes that an exchange may take in addition to its file: status lines, headers, chunk
sizes."""


@dataclass(frozen=True)
class Bounds:
    """The limits of an exchange.

    Args:
        deadline: when it has to be done.
        most: bytes of the largest file.
        allow_private: whether this machine and private networks may be asked.
    """

    deadline: Deadline
    most: int
    allow_private: bool = False


class Meter:
    """Counts the bytes that an exchange takes, and checks its deadline."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.bytes_taken = 0

    def left(self) -> float:
        return self.bounds.deadline.left()

    def count(self, number: int) -> None:
        self.bytes_taken += number
        if self.bytes_taken > self.bounds.most + OVERHEAD:
            raise too_large(self.bounds.most)
