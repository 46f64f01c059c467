"""The text files of images: which row has which file, and what may be in its place
already."""

from __future__ import annotations

import codecs
import os
import re
import stat
import sys
from functools import lru_cache
from pathlib import Path, PurePosixPath

from blip2cli.records import Row, RowError

LOOKED_AT = 4096
"""Bytes of an existing file by which it is decided whether it is a text."""

PORTABLE_PIXMAP = re.compile(rb"P[1-6Ff]\s+(?:#[^\n]*\n\s*)*\d+\s+\d+\s")
"""The beginning of images that have no zero byte."""


class TextOwners:
    """Which row each text file belongs to: the first row that claims it.

    Takes some 200 bytes a row.
    """

    def __init__(self) -> None:
        self.owners: dict[int, tuple[int, str]] = {}
        self.real_folder = lru_cache(1024)(os.path.realpath)
        self.ignores_case = lru_cache(1024)(_ignores_case)

    def claim(self, path: Path, row: Row) -> bool:
        """Claim a text file for a row; False if it belongs to another row.

        Raises OSError.
        """
        owner = self.owners.setdefault(self._identity(path), (row.index, sys.intern(_suffix(row))))
        return owner[0] == row.index

    def conflict(self, path: Path, row: Row) -> RowError | None:
        """The error of a row whose text file belongs to another row."""
        index, suffix = self.owners.get(self._identity(path), (row.index, ""))
        if index == row.index:
            return None
        if suffix == _suffix(row):
            return RowError("conflict", f"{path.name} is the text file of an earlier row")
        return RowError("conflict", f"{path.name} is the text file of {path.stem}{suffix}")

    def _identity(self, path: Path) -> int:
        """A number for a file, the same for all spellings of its path; capitals count if
        the file system says so."""
        folder = self.real_folder(str(path.parent))
        name = path.name.casefold() if self.ignores_case(folder) else path.name
        return hash(os.path.join(folder, name))


def _suffix(row: Row) -> str:
    path = row.image.path if row.image and row.image.path else row.name
    return PurePosixPath(path).suffix


def _ignores_case(folder: str) -> bool:
    """Whether the file system finds a folder by its name with capitals and small letters
    swapped."""
    path, name = os.path.split(folder)
    try:
        return name.swapcase() != name and os.path.samefile(folder, os.path.join(path, name.swapcase()))
    except OSError:
        return False


def existing_fault(path: Path) -> RowError | None:
    """The error if something other than a text has a text file's name, such as a folder.

    Raises OSError.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        return RowError("conflict", f"{path.name} is a folder")
    if not stat.S_ISREG(mode):
        return RowError("conflict", f"{path.name} is not a file")
    with open(path, "rb") as file:
        start = file.read(LOOKED_AT)
    binary = b"\0" in start and not start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if binary or PORTABLE_PIXMAP.match(start):
        return RowError("conflict", f"{path.name} exists and is not a text")
    return None


def text_size(path: Path) -> int | None:
    """Bytes of a text file without white space at its end; None if there is no such file."""
    return len(path.read_bytes().rstrip()) if path.exists() else None
