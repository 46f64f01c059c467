"""Tar archives, WebDataset shards among them, read as they stream by."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from copy import copy
from itertools import islice
from typing import TYPE_CHECKING, Any

from blip2cli.errors import UsageError
from blip2cli.host import storage
from blip2cli.inputs.archive import (
    LOOKED_AT,
    MAX_IMAGE,
    MAX_TEXT,
    Member,
    record_of,
    samples_in,
    samples_of,
    wanted,
)
from blip2cli.inputs.folder import printable
from blip2cli.inputs.formats import is_image
from blip2cli.records import ImageRef, Row

if TYPE_CHECKING:
    import pyarrow as pa

    from blip2cli.inputs import ColumnChoice


class TarShards:
    """One tar archive, or several of one data set; their columns are those of the first.

    Of an archive on this machine that is not compressed only the headers are read here: workers read the images.
    """

    manifest_text = True

    def __init__(self, name: str, columns: ColumnChoice, names: tuple[str, ...] = ()) -> None:
        self.name, self.names = name, names or (name,)
        samples = islice(samples_in(self._members(self.names[0])), LOOKED_AT)
        first: list[dict[str, Any]] = []
        try:
            first += (record_of(key, sample, columns.encoding)[0] for key, sample in samples)
        except (tarfile.TarError, OSError) as error:
            if not first:  # else it is told where it comes
                raise UsageError(f"cannot read {self.names[0]}: {_reason(error)}", "Is it a tar archive?") from None
        if not first and len(self.names) == 1:
            raise UsageError(f"no images found in {name}", "Images end in .jpg, .png, .webp, .tif, .avif and so on.")
        self._samples = samples_of(self.names[0], first, columns)

    def rows(self, start: int = 0) -> Iterator[Row]:
        return islice((row for name in self.names for row in self._rows(name)), start, None)

    def count(self) -> int | None:
        return None

    def apart(self) -> Iterator[TarShards]:
        """Each archive by itself, with the columns of all."""
        for name in self.names:
            one = copy(self)
            one.names = (name,)
            yield one

    def column_names(self) -> list[str]:
        return self._samples.carried

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([self._samples.schema.field(name) for name in self._samples.carried])

    def _rows(self, name: str) -> Iterator[Row]:
        """The rows of one archive; where it is damaged, those before that, and a row that says so."""
        number = 0
        try:
            for row in self._samples.rows(name, self._members(name)):
                yield row
                number += 1
        except (tarfile.TarError, OSError) as error:
            yield Row(0, f"{printable(name)}#{number}", error=f"truncated: {_reason(error)}")

    def _members(self, name: str) -> Iterator[Member]:
        with storage.decompressed(name) as file:
            in_place = not storage.is_url(name) and file.raw_path == name
            watched = _Watched(file.file)
            with tarfile.open(fileobj=watched, mode="r:") as tar:  # type: ignore[call-overload]  # it reads and seeks
                while (info := tar.next()) is not None:
                    tar.members = []  # which it would keep, all of them
                    if info.isreg() and wanted(info.name):
                        yield _member(tar, info, name if in_place and not info.issparse() else None)
            if watched.last.strip(b"\0"):
                raise tarfile.ReadError("the archive is damaged")


class _Watched:
    """A file that remembers what was read last: tarfile takes a damaged header for the end."""

    def __init__(self, file: Any) -> None:
        self.file, self.last = file, b""
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        self.last = self.file.read(size)
        return self.last


def _member(tar: tarfile.TarFile, info: tarfile.TarInfo, path: str | None) -> Member:
    """A member; the bytes of images stay where they are if the archive's `path` is given."""
    if info.size > (MAX_IMAGE if is_image(info.name) else MAX_TEXT):
        return Member(info.name, error=f"too-large: {info.size:,} bytes")
    if is_image(info.name) and path is not None:
        return Member(info.name, ImageRef(path=path, offset=info.offset_data, size=info.size))
    taken = tar.extractfile(info)
    data = taken.read() if taken else b""
    if len(data) < info.size:
        raise tarfile.ReadError("unexpected end of data")
    return Member(info.name, ImageRef(data=data)) if is_image(info.name) else Member(info.name, text=data)


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip(os.linesep)
