"""Texts that are added to existing files: what a file held before, so that an addition
can be checked and undone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blip2cli.outputs.stamp import edited
from blip2cli.outputs.text_files import text_size

SEPARATOR = b", "
"""Stands between an existing text and one that is added: trainers separate tags with
commas."""


@dataclass(frozen=True)
class AddedText:
    """An addition to a text file. The journal has it as a list of these four, before the
    file is changed.

    Args:
        size_before: bytes of the file without white space at its end; None if there was
            no file.
        checksum_before: of these bytes.
        size_after: bytes of the file with the addition.
        checksum_after: of these bytes.
    """

    size_before: int | None
    checksum_before: str
    size_after: int
    checksum_after: str

    @staticmethod
    def planned(path: Path, texts: Sequence[bytes]) -> AddedText:
        """The addition of several texts to a file, which is not changed yet.

        Raises OSError.
        """
        size = text_size(path)
        before = path.read_bytes()[:size] if size is not None else b""
        after = before
        for text in texts:
            existing = after.rstrip()
            after = existing + SEPARATOR + text if existing else text
        return AddedText(size, _checksum(before), len(after), _checksum(after))

    def check(self, path: Path) -> None:
        """Check that a file is as before, or has the addition wholly or in part.

        Raises UsageError.
        """
        data = path.read_bytes() if path.exists() else None
        if data is None and self.size_before is not None:
            raise edited(path, "is gone")
        if data is None or _checksum(data) == self.checksum_after:
            return
        before, added = data[: self.size_before or 0], data[self.size_before or 0 :]
        if _checksum(before) != self.checksum_before or not (self._is_torn(added) or not added.strip()):
            raise edited(path, "is not what was committed")

    def _is_torn(self, added: bytes) -> bool:
        """Whether bytes at the end of the file can be the beginning of the addition."""
        separator = SEPARATOR if self.size_before else b""
        is_shorter = (self.size_before or 0) + len(added) < self.size_after
        return is_shorter and added.startswith(separator[: len(added)])

    def undo(self, path: Path) -> None:
        """Restore the file as it was before. Raises OSError."""
        if self.size_before is None:
            path.unlink(missing_ok=True)
        else:
            os.truncate(path, self.size_before)


def _checksum(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
