"""A remote file that is read by ranges, behind whatever reads one range of it."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO

from blip2cli.host.retries import retried

BLOCK = 4 << 20
"""Bytes of a remote file that are fetched at a time."""


def spans_as_file(read_span: Callable[[int, int], bytes], size: int) -> BinaryIO:
    """A file of `size` bytes, open for reading, from a function that returns the bytes
    from a start up to a stop."""
    return io.BufferedReader(_RemoteFile(read_span, size), BLOCK)


class _RemoteFile(io.RawIOBase):
    """A remote file read by ranges; a range that fails is tried again, and the next range
    is fetched ahead."""

    def __init__(self, read_span: Callable[[int, int], bytes], size: int) -> None:
        self.read_span, self.size = read_span, size
        self.at = 0
        self.ahead: tuple[int, Future[bytes]] | None = None
        self.fetcher = ThreadPoolExecutor(1)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.size}[whence]
        self.at = max(0, start + offset)
        return self.at

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self.size - self.at)
        if size <= 0:
            return 0
        data = self._read(self.at, size)
        buffer[: len(data)] = data
        self.at += len(data)
        if len(data) == BLOCK and self.at < self.size:
            self.ahead = (self.at, self.fetcher.submit(self._fetch, self.at, min(BLOCK, self.size - self.at)))
        return len(data)

    def close(self) -> None:
        self.fetcher.shutdown(wait=False, cancel_futures=True)
        super().close()

    def _read(self, start: int, length: int) -> bytes:
        ahead, self.ahead = self.ahead, None
        if ahead is not None and ahead[0] == start:
            return ahead[1].result()[:length]
        return self._fetch(start, length)

    def _fetch(self, start: int, length: int) -> bytes:
        data = retried(lambda: self.read_span(start, start + length))
        if not data:
            raise OSError(errno.EIO, "the file ends early")
        return bytes(data)
