"""Image files by name, and folders of them. A folder is walked sorted by path, part by part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from blip2cli.errors import UsageError
from blip2cli.records import ImageRef, Row

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .dib .tif .tiff .avif .ppm .pgm .pbm .pnm .jp2 .ico .tga .pcx".split()
)
"""File names that are taken for images, in lower case."""


@dataclass(frozen=True)
class Files:
    """Image files named one by one."""

    names: tuple[str, ...]

    def rows(self, start: int = 0) -> Iterator[Row]:
        for name in self.names[start:]:
            yield image_row(name)

    def count(self) -> int | None:
        return len(self.names)

    def column_names(self) -> list[str]:
        return []

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([])


@dataclass(frozen=True)
class Folder:
    """The images below a folder: any case of suffix; hidden files and folders, and files of other suffixes, left out.

    Links to folders are followed, save back to a folder that is being walked.
    """

    name: str
    _first: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        first = next(_walk(self.name, ()), None)
        if first is None:
            raise UsageError(
                f"no images found in {self.name}", "Images end in .jpg, .png, .webp, .tif, .avif and so on."
            )
        object.__setattr__(self, "_first", first)

    def rows(self, start: int = 0) -> Iterator[Row]:
        for path in islice(_walk(self.name, ()), start, None):
            yield image_row(path)

    def count(self) -> int | None:
        return sum(1 for _ in _walk(self.name, ()))

    def column_names(self) -> list[str]:
        return []

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([])


def image_row(path: str) -> Row:
    """The row of an image file; the name shown has bytes that are no UTF-8 escaped."""
    return Row(0, printable(path), ImageRef(path=path))


def printable(path: str) -> str:
    """The path with bytes that are no UTF-8 written as backslash escapes, so that every output can hold it."""
    try:
        return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can hold
        return path.encode("utf-8", "backslashreplace").decode()


def _walk(folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    try:
        status = os.stat(folder)
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if not above:
            raise UsageError(f"cannot read {folder}: {error.strerror}", "Check the folder's permissions.") from None
        yield folder  # which becomes an error row
        return
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    for entry in listed:
        if entry.name.startswith("."):
            continue
        path = os.path.join(folder, entry.name)
        if _is_folder(entry):
            yield from _walk(path, (*above, identity))
        elif Path(entry.name).suffix.lower() in SUFFIXES:
            yield path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether the entry is or leads to a folder; a link to itself does not."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
