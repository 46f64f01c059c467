"""Files by their names, on this machine or behind a URL that fsspec opens.

Nothing here knows what is in them.
"""

from __future__ import annotations

import errno
import gzip
import io
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

from blip2cli.errors import UsageError, reason
from blip2cli.host.retries import retried
from blip2cli.host.spans import spans_as_file

T = TypeVar("T")

PACKAGES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "hf", "http": "http", "https": "http"}
"""Scheme of a URL → our extra that brings the package for it."""

GZIP, ZSTANDARD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
"""The first bytes of compressed files."""

ZSTANDARD_PIECE = 1 << 10
"""Bytes that are unpacked together. They give 32 MiB at most: 4 bytes may be a block of
128 KiB."""

ZSTD_HINT = "Install it: pip install 'blip2cli[zst]'"

READING_HINT = "Check the path and its permissions."
"""What to do about a file that may not be read."""

DAMAGED_HINT = "Copy or download the file again."
"""What to do about a file whose contents are damaged."""

LFS_POINTER = b"version https://git-lfs"
"""How a file begins that git-lfs has not fetched: it only says which file belongs there."""

LFS_PULL = "Run `git lfs pull` in the folder, or download the file itself."

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(name: str) -> bool:
    """Whether a name is a URL rather than a path."""
    return SCHEME.match(name) is not None


def is_web(name: str) -> bool:
    """Whether a name is the URL of a web server."""
    return name.lower().startswith(("http://", "https://"))


def open_binary(name: str) -> BinaryIO:
    """A file open for reading, with `seek`.

    Raises OSError, and UsageError where a URL's package is missing.
    """
    if not is_url(name):
        return open(name, "rb")
    if is_web(name):
        from blip2cli.host.web.files import open_web

        return open_web(name)
    filesystem, path = _opened(name)
    size = _answered(lambda: filesystem.size(path))
    if size is None:
        raise OSError(errno.EINVAL, "not a file")
    return spans_as_file(lambda start, stop: filesystem.cat_file(path, start=start, end=stop), size)


@dataclass(frozen=True)
class Unpacked:
    """A file open for reading, decompressed if it was compressed; `raw_path` is its path
    if it was not."""

    file: Any
    raw_path: str | None


@contextmanager
def decompressed(name: str) -> Iterator[Unpacked]:
    """A file open for reading, decompressed if its first bytes are those of gzip or
    Zstandard. Raises OSError."""
    with open_binary(name) as packed:
        magic = packed.read(4)
        packed.seek(0)
        if not magic.startswith((GZIP, ZSTANDARD)):
            yield Unpacked(packed, name)
            return
        try:
            with _unpacked(packed, name, magic) as file:
                yield Unpacked(file, None)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise OSError(errno.EBADMSG, f"the compressed data are damaged: {error}") from None


def _unpacked(packed: BinaryIO, name: str, magic: bytes) -> Any:
    if magic.startswith(GZIP):
        return gzip.GzipFile(fileobj=packed)
    try:
        import zstandard
    except ImportError:
        raise UsageError(f"cannot read {name}: the package zstandard is missing", ZSTD_HINT) from None
    return io.BufferedReader(_Zstandard(zstandard, packed))


class _Zstandard(io.RawIOBase):
    """The unpacked bytes of a Zstandard file of any number of frames; its damage, and an
    end within a frame, is an OSError."""

    def __init__(self, zstandard: Any, packed: BinaryIO) -> None:
        self.damage = zstandard.ZstdError
        self.decompressor = zstandard.ZstdDecompressor()
        self.packed = packed
        self.frame: Any = None  # the one that has begun and not ended
        self.rest = b""  # what was read behind the end of a frame
        self.unpacked = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.unpacked and (piece := self.rest or self.packed.read(ZSTANDARD_PIECE)):
            self.unpacked = memoryview(self._unpack(piece))
        if not self.unpacked and self.frame is not None:
            raise OSError(errno.EBADMSG, "the compressed data are damaged: the file ends too early")
        size = min(len(buffer), len(self.unpacked))
        buffer[:size] = self.unpacked[:size]
        self.unpacked = self.unpacked[size:]
        return size

    def _unpack(self, piece: bytes) -> bytes:
        self.frame = self.frame or self.decompressor.decompressobj()
        try:
            data: bytes = self.frame.decompress(piece)
        except self.damage as error:
            raise OSError(errno.EBADMSG, f"the compressed data are damaged: {error}") from None
        self.rest = b""
        if self.frame.eof:
            self.rest, self.frame = self.frame.unused_data, None
        return data


def read(name: str, most: int, offset: int = 0, size: int | None = None) -> bytes:
    """The bytes of a file, or `size` of them from `offset` on.

    Raises OSError; EFBIG for more than `most`.
    """
    with open_binary(name) as file:
        return read_from(file, most, offset, size)


def read_from(file: BinaryIO, most: int, offset: int = 0, size: int | None = None) -> bytes:
    """The same for an open file."""
    length = size if size is not None else file.seek(0, os.SEEK_END)
    if length > most:
        raise OSError(errno.EFBIG, f"{length:,} bytes")
    file.seek(offset)
    return file.read(length)


def is_lfs_pointer(path: str | os.PathLike[str]) -> bool:
    """Whether a file of this machine is only git-lfs's pointer to it. Raises OSError."""
    with open(path, "rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER


def is_folder(name: str) -> bool:
    """Whether a folder of that name exists."""
    if not is_url(name):
        return os.path.isdir(name)
    filesystem, path = _opened(name)
    return bool(_answered(lambda: filesystem.isdir(path)))


def exists(name: str) -> bool:
    """Whether a file or folder of that name exists."""
    if not is_url(name):
        return os.path.lexists(name)
    if is_web(name):
        from blip2cli.host.web.files import web_file_exists

        return web_file_exists(name)
    filesystem, path = _opened(name)
    return bool(_answered(lambda: filesystem.exists(path)))


def urls_below(url: str) -> Iterator[str]:
    """The URLs of all files below a remote folder, sorted; hidden files and folders left
    out."""
    if is_web(url):
        from blip2cli.host.web.listing import files_below

        root, names = url.rstrip("/"), files_below(url)
    else:
        filesystem, path = _opened(url)
        root = filesystem._strip_protocol(path).rstrip("/")
        names = sorted(_answered(lambda: filesystem.find(path)))
    for file in names:
        below = file[len(root) :].lstrip("/")
        if below and not any(part.startswith(".") for part in below.split("/")):
            yield f"{url.rstrip('/')}/{below}"


def urls_matching(pattern: str) -> list[str]:
    """The URLs that a remote glob matches, sorted."""
    if is_web(pattern):
        from blip2cli.host.web.listing import files_matching

        return files_matching(pattern)
    filesystem, path = _opened(pattern)
    scheme = pattern.partition("://")[0]
    paths = sorted(_answered(lambda: filesystem.glob(path)))
    return [name if is_url(name) else f"{scheme}://{name.lstrip('/')}" for name in paths]


def check_package(url: str) -> None:
    """Check that the package for a URL is installed. Raises UsageError."""
    if not is_web(url):
        _opened(url)


def _answered(function: Callable[[], T]) -> T:
    """The file system of a package for URLs.

    Raises OSError, also for a URL that it does not accept.
    """
    try:
        return retried(function)
    except ValueError as error:
        raise OSError(errno.EINVAL, reason(error)) from None


def _opened(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises UsageError where the package for it is missing.
    """
    scheme = url.partition("://")[0].lower()
    try:
        import fsspec

        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError:
        extra = PACKAGES.get(scheme)
        hint = f"Install it: pip install 'blip2cli[{extra}]'" if extra else "Install the fsspec package for it."
        raise UsageError(f"cannot open {url}: the package for {scheme}:// is not installed", hint) from None
    except ValueError as error:
        raise UsageError(
            f"cannot open {url}: {reason(error, named=True)}", "Use s3://, gs://, hf:// or https://."
        ) from None
    return filesystem, path


def reading_hint(error: Exception, otherwise: str = READING_HINT) -> str:
    """The hint for a file that cannot be read: fetch it again if it is damaged, check its
    permissions, or else the given text."""
    if isinstance(error, OSError) and error.errno == errno.EBADMSG:
        return DAMAGED_HINT
    return READING_HINT if isinstance(error, PermissionError) else otherwise
