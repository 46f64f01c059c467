"""Zip archives: their images in the order of their names, as of a folder."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from itertools import groupby, islice
from typing import TYPE_CHECKING

from blip2cli.errors import UsageError
from blip2cli.host import storage
from blip2cli.inputs.archive import (
    LOOKED_AT,
    MAX_IMAGE,
    MAX_TEXT,
    Member,
    key_of,
    record_of,
    samples_in,
    samples_of,
    wanted,
)
from blip2cli.inputs.formats import is_image
from blip2cli.records import ImageRef, Row

if TYPE_CHECKING:
    import pyarrow as pa

    from blip2cli.inputs import ColumnChoice


class ZipArchive:
    """One zip archive. Its directory is read whole, its members one by one."""

    manifest_text = True

    def __init__(self, name: str, columns: ColumnChoice) -> None:
        self.name = name
        try:
            with storage.open_binary(name) as file, zipfile.ZipFile(file) as archive:
                found = [info for info in archive.infolist() if not info.is_dir() and wanted(info.filename)]
                self._infos = sorted(found, key=lambda info: (key_of(info.filename)[0], info.filename))
                samples = islice(samples_in(self._members(archive, self._infos, texts=True)), LOOKED_AT)
                first = [record_of(key, sample, columns.encoding)[0] for key, sample in samples]
        except (zipfile.BadZipFile, NotImplementedError, struct.error, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"cannot read {name}: {reason}", "Is it a zip archive?") from None
        if not self._infos:
            raise UsageError(f"no images found in {name}", "Images end in .jpg, .png, .webp, .tif, .avif and so on.")
        self._samples = samples_of(name, first, columns)

    def rows(self, start: int = 0) -> Iterator[Row]:
        before, infos = 0, []
        for group in self._groups():
            if before + _rows_of(group) > start:
                infos += group
            else:
                before += _rows_of(group)
        with storage.open_binary(self.name) as file, zipfile.ZipFile(file) as archive:
            yield from islice(self._samples.rows(self.name, self._members(archive, infos)), start - before, None)

    def count(self) -> int | None:
        return sum(map(_rows_of, self._groups()))

    def column_names(self) -> list[str]:
        return self._samples.carried

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([self._samples.schema.field(name) for name in self._samples.carried])

    def _groups(self) -> Iterator[list[zipfile.ZipInfo]]:
        return (list(group) for _, group in groupby(self._infos, lambda info: key_of(info.filename)[0]))

    @staticmethod
    def _members(archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo], texts: bool = False) -> Iterator[Member]:
        """The members with their bytes; of `texts` alone those."""
        for info in infos:
            image = is_image(info.filename)
            if image and texts:
                yield Member(info.filename)
                continue
            most = MAX_IMAGE if image else MAX_TEXT
            try:
                with archive.open(info) as file:
                    data = file.read(most + 1)
            except Exception as error:  # each way to compress has its own, and a member may say it is encrypted
                yield Member(info.filename, error=f"unreadable: {str(error) or type(error).__name__}"[:120])
                continue
            if len(data) > most:
                yield Member(info.filename, error=f"too-large: more than {most:,} bytes")
            else:
                yield Member(info.filename, ImageRef(data=data)) if image else Member(info.filename, text=data)


def _rows_of(group: list[zipfile.ZipInfo]) -> int:
    return max(1, sum(is_image(info.filename) for info in group))
