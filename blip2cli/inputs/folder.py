"""Image files by name, and folders of them. A folder is walked sorted by path, part by part."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from blip2cli.errors import UsageError
from blip2cli.inputs.formats import is_image
from blip2cli.records import ImageRef, Row

if TYPE_CHECKING:
    import pyarrow as pa


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

    def __post_init__(self) -> None:
        if next(images_below(self.name), None) is None:
            raise UsageError(
                f"no images found in {self.name}", "Images end in .jpg, .png, .webp, .tif, .avif and so on."
            )

    def rows(self, start: int = 0) -> Iterator[Row]:
        for path in islice(images_below(self.name), start, None):
            yield image_row(path)

    def count(self) -> int | None:
        return sum(1 for _ in images_below(self.name))

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


def images_below(folder: str) -> Iterator[str]:
    """The images in a folder and those below it, in the order of a walk."""
    return walk(folder, is_image)


def walk(folder: str, wanted: Callable[[str], bool], above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """The files below a folder whose names are wanted, sorted by path; hidden files and folders left out.

    A folder within that cannot be read is given as it is: it becomes an error row. `above` is for the walk itself: the
    folders it came through.
    """
    try:
        status = os.stat(folder)
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if not above:
            raise UsageError(f"cannot read {folder}: {error.strerror}", "Check the folder's permissions.") from None
        yield folder
        return
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    for entry in listed:
        if entry.name.startswith("."):
            continue
        path = os.path.join(folder, entry.name)
        if _is_folder(entry):
            yield from walk(path, wanted, (*above, identity))
        elif wanted(entry.name):
            yield path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether the entry is or leads to a folder; a link to itself does not."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
