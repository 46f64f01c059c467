"""A file that only grows, and is committed by its size and checksum: what a killed run wrote after that is cut off.

Compressed files grow by whole members (gzip) or frames (Zstandard), so that they can be read after every commit.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from blip2cli.errors import OutputError, UsageError
from blip2cli.host.files import cannot_write
from blip2cli.host.storage import GZIP, ZSTANDARD, ZSTD_HINT
from blip2cli.outputs.stamp import Checksum, Stamp, edited

MEMBER = 1 << 20
"""Bytes that are compressed together, where a commit does not come first."""

LOOKED_AT = 4 << 20
"""Bytes after the last commit that are checked for being those of a run that was killed."""

GO_ON = "Free some space, then run again with --resume."


class AppendedFile:
    """One file. `size` is what it has on disk, `write` may hold back what is not yet compressed.

    It is not created before there is something to write, or `sync` is called. An existing file is continued at the
    committed `stamp`; without a stamp it is overwritten.
    """

    def __init__(self, path: Path, stamp: Stamp | None = None) -> None:
        self.path = path
        self.pack = _packing(path)
        self.held: list[bytes] = []
        self.checksum = Checksum()
        if stamp is not None and stamp.size:
            self.checksum = Checksum.of(path, stamp.size)
        if path.exists():
            os.truncate(path, self.size)

    @property
    def size(self) -> int:
        return self.checksum.size

    @property
    def stamp(self) -> Stamp:
        """The file's part of a commit."""
        return Stamp(self.size, self.checksum.text())

    def write(self, data: bytes) -> None:
        """Add to the end. Raises OutputError."""
        self.held.append(data)
        if self.pack is None or sum(map(len, self.held)) >= MEMBER:
            self._flush()

    def sync(self) -> None:
        """Put everything that was written on disk. Raises OutputError."""
        self._flush()
        try:
            with open(self.path, "ab") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from None

    def cut(self, size: int) -> None:
        """Cut the file to a size."""
        os.truncate(self.path, size)
        self.checksum = Checksum.of(self.path, size)

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
        self.checksum.add(data)


def check_appended(path: Path, stamp: Stamp, finished: bool, continues: Callable[[bytes], bool]) -> None:
    """Check that a file is what was committed of it, and changes nothing. Raises UsageError.

    Args:
        path: the file.
        stamp: what was committed.
        finished: whether nothing was to follow.
        continues: whether bytes, the last of which may be missing, could be the run's own that come next. They are
            unpacked before, if the file is compressed.
    """
    size = path.stat().st_size if path.exists() else 0
    if size < stamp.size:
        raise edited(path, "is shorter than it was" if path.exists() else "is gone")
    if stamp.size and stamp.checksum and Checksum.of(path, stamp.size).text() != stamp.checksum:
        raise edited(path, "is not what was committed")
    if size == stamp.size:
        return
    with open(path, "rb") as file:
        file.seek(stamp.size)
        uncommitted = file.read(LOOKED_AT)
    if finished or not continues(_unpacked(path, uncommitted)):
        raise edited(path, "is longer than it was")


def stamp_in(state: Mapping[str, Any], size: str = "size", checksum: str = "checksum") -> Stamp:
    """The stamp in a commit's state; that of an empty file where nothing was committed. Without a checksum, none is
    compared.
    """
    return Stamp(state.get(size, 0), state.get(checksum, ""))


def unwritable(path: Path, error: OSError) -> OutputError:
    """The error for a file that cannot be written."""
    return cannot_write(path, error, GO_ON)


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


def _unpacked(path: Path, data: bytes) -> bytes:
    """As much of compressed bytes as can be unpacked; bytes that are not what the suffix says as they are.

    Text ends where zeros begin, as a disk may leave them that lost its power.
    """
    if path.suffix.lower() == ".gz":
        return _gunzipped(data) if (data[:2] == GZIP[: len(data)]) else data
    if path.suffix.lower() != ".zst":
        return data.partition(b"\0")[0]
    import zstandard

    if data[:4] != ZSTANDARD[: len(data)]:
        return data
    try:
        return bytes(zstandard.ZstdDecompressor().decompressobj().decompress(data))
    except zstandard.ZstdError:
        return b""


def _gunzipped(data: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(data)
    except zlib.error:
        return b""
