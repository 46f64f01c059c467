"""Image files by name, and folders of them. A folder is walked sorted by path, part by part."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from blip2cli.errors import UsageError
from blip2cli.host import storage
from blip2cli.inputs.formats import is_image, note_unread, told
from blip2cli.records import ImageRef, Row

if TYPE_CHECKING:
    import pyarrow as pa


ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
"""A byte that is no UTF-8 in a path that is printed."""


@dataclass(frozen=True)
class Files:
    """Image files named one by one. `passed_over` counts, by suffix, what a glob or remote folder has besides."""

    names: tuple[str, ...]
    passed_over: Counter[str] = field(default_factory=Counter)

    def rows(self, start: int = 0) -> Iterator[Row]:
        for name in self.names[start:]:
            yield image_row(name)

    def count(self) -> int | None:
        return len(self.names)

    def unread(self) -> Counter[str]:
        return self.passed_over

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
    passed_over: Counter[str] = field(default_factory=Counter, compare=False)

    def __post_init__(self) -> None:
        if next(images_below(self.name), None) is None:
            self.count()
            others = f"; {told(self.passed_over)}" if self.passed_over else ""
            raise UsageError(
                f"no images found in {self.name}{others}", "Images end in .jpg, .png, .webp, .tif, .avif and so on."
            )

    def rows(self, start: int = 0) -> Iterator[Row]:
        for path in islice(images_below(self.name), start, None):
            yield image_row(path)

    def count(self) -> int | None:
        self.passed_over.clear()
        return sum(1 for _ in images_below(self.name, self.passed_over))

    def unread(self) -> Counter[str]:
        return self.passed_over

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


def spelled(path: str) -> str:
    """The path of the file that a printed path stands for: as it is, or with its backslash escapes as bytes."""
    if not ESCAPED.search(path.encode("utf-8", "surrogatepass")) or os.path.lexists(path):
        return path
    try:
        found = unescaped(path)
    except UnicodeEncodeError:  # half a surrogate pair, which no file's name has
        return path
    return found if os.path.lexists(found) else path


def unescaped(path: str) -> str:
    """The path with backslash escapes, as `printable` writes them, as the bytes that they stand for."""
    encoded = path.encode("utf-8", "surrogateescape")
    return os.fsdecode(ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), encoded))


def images_below(folder: str, passed_over: Counter[str] | None = None) -> Iterator[str]:
    """The images in a folder and those below it, in the order of a walk; what is not read is counted."""

    def wanted(name: str) -> bool:
        if is_image(name):
            return True
        if passed_over is not None:
            note_unread(passed_over, name)
        return False

    return walk(folder, wanted)


def walk(folder: str, wanted: Callable[[str], bool]) -> Iterator[str]:
    """The files below a folder whose names are wanted, sorted by path; hidden files and folders left out.

    A folder within that cannot be read, one whose path is too long for the system among them, is given as it is: it
    becomes an error row.
    """
    return (found.path for found in _walked(folder, wanted))


@dataclass(frozen=True)
class Found:
    """What a walk or a glob came upon; `closed` says that it is a folder that cannot be read."""

    path: str
    closed: bool = False


def _walked(folder: str, wanted: Callable[[str], bool]) -> Iterator[Found]:
    try:
        opened = [_opened(folder, ())]
    except OSError as error:
        raise UsageError(f"cannot read {folder}: {error.strerror}", storage.READING_HINT) from None
    while opened and (here := opened[-1]):
        entry = next(here.entries, None)
        if entry is None:
            opened.pop()
            continue
        path = os.path.join(here.path, entry.name)
        if not _is_folder(entry):
            if wanted(entry.name):
                yield Found(path)
            continue
        try:
            below = _opened(path, [folder.identity for folder in opened if folder])
        except OSError:
            yield Found(path, closed=True)
            continue
        if below is not None:
            opened.append(below)


@dataclass(frozen=True)
class _OpenFolder:
    """A folder that is being walked: what is left of its entries, and what tells it from other folders."""

    path: str
    entries: Iterator[os.DirEntry[str]]
    identity: tuple[int, int]


def _opened(path: str, above: Collection[tuple[int, int]]) -> _OpenFolder | None:
    """A folder with its visible entries in their order; None where a link led back to one above. Raises OSError."""
    status = os.stat(path)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return None
    with os.scandir(path) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    return _OpenFolder(path, iter(visible), identity)


def matching(pattern: str) -> list[Found]:
    """The files and folders that a glob matches, sorted; for `**` files alone, at any depth, and closed folders."""
    parts = pattern.split("/")
    at = parts.index("**") if "**" in parts else None
    if at is None or any(part.startswith(".") for part in parts[at:]):
        return [Found(path) for path in sorted(glob.glob(pattern, recursive=True))]
    start = "/".join(parts[:at]) or ("/" if pattern.startswith("/") else "")
    found: list[Found] = []
    for folder in glob.glob(start) if start else ["."]:
        for path in _walked(folder, lambda name: True) if os.path.isdir(folder) else ():
            below = path.path[len(folder) :].lstrip("/")
            if path.closed or _matches(below.split("/"), parts[at:]):
                found.append(path if start else Found(below, path.closed))
    return sorted(found, key=lambda found: found.path)


def _matches(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether the names in a path, outermost first, match a glob in which `**` is any number of folders."""
    reached = _passing({0}, parts)
    for name in names:
        stayed = {at for at in reached if parts[at : at + 1] == ["**"]}
        passed = {at + 1 for at in reached if at < len(parts) and fnmatch.fnmatchcase(name, parts[at])}
        reached = _passing(stayed | passed, parts)
    return len(parts) in reached


def _passing(reached: set[int], parts: Sequence[str]) -> set[int]:
    """The places in a glob that are reached, with those behind a `**`, which may stand for nothing."""
    return reached | {at + 1 for at in reached if parts[at : at + 1] == ["**"]}


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether the entry is or leads to a folder; a link to itself does not."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
