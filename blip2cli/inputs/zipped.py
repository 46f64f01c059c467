"""Zip archives: their images in the order of their names, as in a folder."""

from __future__ import annotations

import stat
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby, islice
from typing import TYPE_CHECKING

from blip2cli.errors import UsageError, reason
from blip2cli.host import storage
from blip2cli.inputs.archive import (
    LOOKED_AT,
    MAX_IMAGE,
    MAX_TEXT,
    Archive,
    Member,
    held,
    key_of,
    record_of,
    samples_in,
    samples_of,
    visible,
    wanted,
)
from blip2cli.inputs.image_formats import NO_IMAGES_HINT, is_image, note_unread
from blip2cli.inputs.links import BrokenLink, Links, normal
from blip2cli.records import Row, RowError

if TYPE_CHECKING:
    from blip2cli.inputs.columns import ColumnChoice

ENCRYPTED = 1
"""The flag of an encrypted member."""

LONGEST_TARGET = 4096
"""The most bytes of a link's target."""


class ZipArchive(Archive):
    """One zip archive. Its directory is read at once, its members one by one."""

    def __init__(self, name: str, columns: ColumnChoice) -> None:
        self.name = name
        try:
            with storage.open_binary(name) as file, zipfile.ZipFile(file) as archive:
                files = [info for info in archive.infolist() if info.filename and not info.is_dir()]
                self._infos = sorted((info for info in files if wanted(info.filename)), key=_sample_and_name)
                self._unread = _unread_in(files)
                self._links, self._files = _links_in(archive, files)
                members = self._members(archive, self._infos, only_texts=True)
                samples = islice(samples_in(members), LOOKED_AT)
                first = [record_of(key, sample, columns.encoding)[0] for key, sample in samples]
        except (zipfile.BadZipFile, NotImplementedError, struct.error, OSError, ValueError) as error:
            raise UsageError(
                f"cannot read {name}: {reason(error)}", storage.reading_hint(error, "Is it a zip archive?")
            ) from None
        if not self._infos:
            raise UsageError(f"no images found in {name}", NO_IMAGES_HINT)
        self.samples = samples_of(name, first, columns)

    @property
    def files(self) -> Sequence[str]:
        return (self.name,)

    def rows(self, start: int = 0) -> Iterator[Row]:
        skipped, infos = 0, []  # samples before the start are not read
        for group in self._groups():
            if skipped + _rows_of(group) > start:
                infos += group
            else:
                skipped += _rows_of(group)
        with storage.open_binary(self.name) as file, zipfile.ZipFile(file) as archive:
            rows = self.samples.rows(self.name, self._members(archive, infos))
            yield from islice(rows, start - skipped, None)

    def count(self) -> int | None:
        return sum(map(_rows_of, self._groups()))

    def _groups(self) -> Iterator[list[zipfile.ZipInfo]]:
        """The members of each sample."""
        return (list(group) for _, group in groupby(self._infos, lambda info: key_of(info.filename)[0]))

    def unread(self) -> Counter[str]:
        return self._unread

    def _members(
        self, archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo], only_texts: bool = False
    ) -> Iterator[Member]:
        """The members with their bytes; with `only_texts`, images have none."""
        for info in infos:
            if only_texts and is_image(info.filename):
                yield Member(info.filename)
                continue
            yield Member(info.filename, announced=True)
            try:
                yield _member(archive, info.filename, self._file(info))
            except BrokenLink as error:
                yield Member(info.filename, error=RowError("missing", str(error)))
            except Exception as error:  # each method of compression has its own
                yield Member(info.filename, error=RowError("unreadable", reason(error)))

    def _file(self, info: zipfile.ZipInfo) -> zipfile.ZipInfo:
        """The member itself, or if it is a link, the file that it leads to.

        Raises BrokenLink.
        """
        if not _is_link(info):
            return info
        target = self._links.target(info.filename)
        if target not in self._files:
            raise BrokenLink("a link to a file that is not in the archive")
        return self._files[target]


def _member(archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> Member:
    """A member with its bytes, under a name that may be that of a link to it."""
    most = MAX_IMAGE if is_image(name) else MAX_TEXT
    if info.file_size > most:
        return Member(name, error=RowError("too-large", f"{info.file_size:,} bytes"))
    if info.flag_bits & ENCRYPTED:
        return Member(name, error=RowError("unreadable", "the member is encrypted"))
    with archive.open(info) as file:
        data = file.read(most + 1)
    if len(data) > most:
        return Member(name, error=RowError("too-large", f"more than {most:,} bytes"))
    return held(name, data)


def _links_in(archive: zipfile.ZipFile, files: list[zipfile.ZipInfo]) -> tuple[Links, dict[str, zipfile.ZipInfo]]:
    """The symbolic links, and if there are any, the files by their normal names."""
    links = Links()
    symbolic = [info for info in files if _is_link(info)]
    for info in symbolic:
        with suppress(Exception):  # a link that cannot be read leads nowhere
            with archive.open(info) as file:
                target = file.read(LONGEST_TARGET + 1)
            if len(target) <= LONGEST_TARGET:
                links.add(info.filename, target.decode("utf-8", "surrogateescape"), hard=False)
    if not symbolic:
        return links, {}
    return links, {normal(info.filename): info for info in files if not _is_link(info)}


def _unread_in(files: list[zipfile.ZipInfo]) -> Counter[str]:
    """Files that are not read, by suffix."""
    unread: Counter[str] = Counter()
    for info in files:
        if not wanted(info.filename) and visible(info.filename):
            note_unread(unread, info.filename)
    return unread


def _sample_and_name(info: zipfile.ZipInfo) -> tuple[str, str]:
    return key_of(info.filename)[0], info.filename


def _is_link(info: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(info.external_attr >> 16)


def _rows_of(group: list[zipfile.ZipInfo]) -> int:
    """The rows of some members: one for each image, and one for each sample without an
    image."""
    rows = 0
    for _, sample in samples_in(Member(info.filename) for info in group):
        images = sum(is_image(member.name) for member in sample)
        rows += max(1, images)
    return rows
