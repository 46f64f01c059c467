"""Files below a folder, and files that match a pattern. A folder is walked sorted by path, part by part."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from blip2cli.errors import UsageError, reason
from blip2cli.host import storage
from blip2cli.inputs.image_formats import is_image, note_unread


@dataclass(frozen=True)
class Entry:
    """A path that a walk or a pattern leads to; `unreadable` says that it is a folder that cannot be read."""

    path: str
    unreadable: bool = False


def images_below(folder: str, unread: Counter[str] | None = None) -> Iterator[str]:
    """The images in a folder and those below it, in the order of a walk; other files are counted in `unread`."""

    def wanted(name: str) -> bool:
        if is_image(name):
            return True
        if unread is not None:
            note_unread(unread, name)
        return False

    return walk(folder, wanted)


def walk(folder: str, wanted: Callable[[str], bool]) -> Iterator[str]:
    """The files below a folder whose names are wanted, sorted by path; hidden files and folders are left out.

    Links to folders are followed, except back to a folder that is being walked. A folder below that cannot be read (its
    path may be too long for the system) is given as it is: it becomes an error row. Raises UsageError where the
    folder itself cannot be read.
    """
    return (entry.path for entry in _walked(folder, wanted))


def _walked(folder: str, wanted: Callable[[str], bool]) -> Iterator[Entry]:
    try:
        top = _opened(folder, ())
    except OSError as error:
        raise UsageError(f"cannot read {folder}: {reason(error)}", storage.READING_HINT) from None
    open_folders = [] if top is None else [top]
    while open_folders:
        current = open_folders[-1]
        entry = next(current.entries, None)
        if entry is None:
            open_folders.pop()
            continue
        path = os.path.join(current.path, entry.name)
        if not _is_folder(entry):
            if wanted(entry.name):
                yield Entry(path)
            continue
        try:
            below = _opened(path, [parent.identity for parent in open_folders])
        except OSError:
            yield Entry(path, unreadable=True)
            continue
        if below is not None:
            open_folders.append(below)


@dataclass(frozen=True)
class _OpenFolder:
    """A folder that is being walked: the entries still to come, and what tells it from other folders."""

    path: str
    entries: Iterator[os.DirEntry[str]]
    identity: tuple[int, int]


def _opened(path: str, parents: Collection[tuple[int, int]]) -> _OpenFolder | None:
    """A folder with its visible entries in their order; None where a link led back to a parent. Raises OSError."""
    status = os.stat(path)
    identity = (status.st_dev, status.st_ino)
    if identity in parents:
        return None
    with os.scandir(path) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    visible.sort(key=lambda entry: entry.name)
    return _OpenFolder(path, iter(visible), identity)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether the entry is or leads to a folder; a link to itself does not."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def matching(pattern: str) -> list[Entry]:
    """The files and folders that a glob matches, sorted; for `**` only files, at any depth, and unreadable folders."""
    parts = pattern.split("/")
    at = parts.index("**") if "**" in parts else None
    if at is None or any(part.startswith(".") for part in parts[at:]):
        return [Entry(path) for path in sorted(glob.glob(pattern, recursive=True))]
    start = "/".join(parts[:at]) or ("/" if pattern.startswith("/") else "")
    folders = glob.glob(start) if start else ["."]
    matches: list[Entry] = []
    for folder in filter(os.path.isdir, folders):
        for entry in _walked(folder, lambda name: True):
            below = entry.path[len(folder) :].lstrip("/")
            if entry.unreadable or _matches(below.split("/"), parts[at:]):
                matches.append(entry if start else Entry(below, entry.unreadable))
    return sorted(matches, key=lambda entry: entry.path)


def _matches(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether the names in a path, outermost first, match a glob in which `**` is any number of folders."""
    reached = _past_double_stars({0}, parts)
    for name in names:
        stayed = {at for at in reached if parts[at : at + 1] == ["**"]}
        passed = {at + 1 for at in reached if at < len(parts) and fnmatch.fnmatchcase(name, parts[at])}
        reached = _past_double_stars(stayed | passed, parts)
    return len(parts) in reached


def _past_double_stars(reached: set[int], parts: Sequence[str]) -> set[int]:
    """The positions in a glob that are reached, with those after a `**`, which may stand for no folder at all."""
    return reached | {at + 1 for at in reached if parts[at : at + 1] == ["**"]}
