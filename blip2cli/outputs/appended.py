"""A file that only grows, and is committed by its size: what lies behind the last commit is cut off when it is resumed.

Compressed files grow by whole members (gzip) or frames (Zstandard), so that they can be read behind every commit.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

from blip2cli.errors import OutputError, UsageError
from blip2cli.host.storage import ZSTD_HINT

MEMBER = 1 << 20
"""Bytes that are compressed together, where a commit does not come first."""


class AppendedFile:
    """One file. `size` is what it has on disk, `write` may hold back what is not yet compressed."""

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path, self.size = path, size
        self.pack = _packing(path)
        self.held: list[bytes] = []
        if not size:
            path.touch()
        there = path.stat().st_size if path.exists() else 0
        if there < size:
            raise UsageError(f"{path} is shorter than it was", "Something else changed it; use --overwrite.")
        if there > size:
            os.truncate(path, size)

    def write(self, data: bytes) -> None:
        """Add to the end. Raises OutputError."""
        self.held.append(data)
        if self.pack is None or sum(map(len, self.held)) >= MEMBER:
            self._flush()

    def sync(self) -> None:
        """Put all that was written on disk, for good. Raises OutputError."""
        self._flush()
        try:
            with open(self.path, "ab") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from None

    def cut(self, size: int) -> None:
        """Take back what lies behind a size."""
        os.truncate(self.path, size)
        self.size = size

    def _flush(self) -> None:
        data, self.held = b"".join(self.held), []
        if not data:
            return
        if self.pack is not None:
            data = self.pack(data)
        try:
            with open(self.path, "ab") as file:
                file.write(data)
        except OSError as error:
            raise unwritable(self.path, error) from None
        self.size += len(data)


def unwritable(path: Path, error: OSError) -> OutputError:
    """What a user is told of a file that cannot be written."""
    return OutputError(f"cannot write {path}: {error.strerror}", "Make room, then run again with --resume.")


def _packing(path: Path) -> Callable[[bytes], bytes] | None:
    if path.suffix.lower() == ".gz":
        return lambda data: gzip.compress(data, 6, mtime=0)
    if path.suffix.lower() != ".zst":
        return None
    try:
        import zstandard
    except ImportError:
        raise UsageError(f"cannot write {path}: the package zstandard is missing", ZSTD_HINT) from None
    compressor = zstandard.ZstdCompressor(level=3)
    return lambda data: bytes(compressor.compress(data))
