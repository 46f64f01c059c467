"""A short record of what a file holds: its size, and a checksum of its beginning and its end.

So a change is seen quickly, however large the file. What is noticed: anything added or
taken away anywhere, and any change in the first HEAD or the last TAIL bytes. What is not: a change further inside that
leaves the size as it was.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blip2cli.errors import UsageError

HEAD = 64 << 20
"""Bytes of a file's beginning that its checksum covers."""

TAIL = 64 << 10
"""Bytes of its end. Of a shard, of which there may be thousands, no others are read."""

READ_AT_ONCE = 1 << 20


class Checksum:
    """The checksum of bytes that come one after the other; `size` counts them."""

    def __init__(self, head: int = HEAD) -> None:
        self.size = 0
        self._room = head
        self._head = hashlib.blake2b(digest_size=16)
        self._tail = b""

    def add(self, data: bytes) -> None:
        """Take more bytes."""
        self._head.update(data[: self._room])
        self._room = max(self._room - len(data), 0)
        self._tail = (self._tail + data[-TAIL:])[-TAIL:]
        self.size += len(data)

    def text(self) -> str:
        """The checksum of all bytes so far."""
        return hashlib.blake2b(self._head.digest() + self._tail, digest_size=16).hexdigest()

    @classmethod
    def of(cls, path: Path, size: int, head: int = HEAD) -> Checksum:
        """That of the first `size` bytes of a file. Raises OSError."""
        checksum = cls(head)
        with open(path, "rb") as file:
            while file.tell() < min(head, size):
                data = file.read(min(READ_AT_ONCE, min(head, size) - file.tell()))
                if not data:
                    break
                checksum.add(data)
            file.seek(max(size - TAIL, 0))
            checksum._tail = file.read(min(size, TAIL))
        checksum._room = max(head - size, 0)
        checksum.size = size
        return checksum


@dataclass(frozen=True)
class Stamp:
    """A file's size and checksum, as they are committed."""

    size: int
    checksum: str

    @staticmethod
    def of(path: Path, head: int = HEAD) -> Stamp:
        """That of a file as it is; of one behind a URL, without a checksum. Raises OSError."""
        size = path.stat().st_size
        return Stamp(size, Checksum.of(path, size, head).text() if isinstance(path, Path) else "")

    @property
    def state(self) -> dict[str, Any]:
        """As it stands in a commit."""
        return {"size": self.size, "checksum": self.checksum}

    def fits(self, path: Path, head: int = HEAD) -> bool:
        """Whether a file is as this says; of one behind a URL, only its size is looked at."""
        try:
            if path.stat().st_size != self.size:
                return False
            return not isinstance(path, Path) or Checksum.of(path, self.size, head).text() == self.checksum
        except OSError:
            return False


def edited(out: object, what: str) -> UsageError:
    """The error for an output that is not what was committed."""
    return UsageError(f"{out} {what}: something else changed it", "Put it back as it was, or use --overwrite.")
