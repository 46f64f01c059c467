"""What is known of a format of input files before one of them is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from blip2cli.errors import UsageError
from blip2cli.host import storage
from blip2cli.host.files import special_file
from blip2cli.host.imports import load_object
from blip2cli.inputs.columns import ColumnChoice
from blip2cli.inputs.source import Source


@dataclass(frozen=True)
class FileFormat:
    """One format of files that hold rows, and what is done with them.

    Args:
        source: "module:Class" of the source that reads a file, made from (name as typed, ColumnChoice).
        suffixes: those of its files; a suffix may have two parts.
        contents: an "archive" holds images, a "table" a row an image or text. Folders are read as either of them;
            "other" files are read only if they are named, or a pattern ends with their suffix.
        joins_files: whether the source also takes several files as one data set: (name, ColumnChoice, *names).
        metadata: "module:function" that reads what a writer has noted in a file, by keys, from its name; "" where the
            format has no place for it.
    """

    source: str
    suffixes: tuple[str, ...]
    contents: Literal["table", "archive", "other"] = "table"
    joins_files: bool = False
    metadata: str = ""

    def open(self, name: str, columns: ColumnChoice, *names: str) -> Source:
        """The source of a file, or of several as one data set that has the name of the first.

        Raises UsageError where it is a pipe or a device, which cannot be read twice, or git-lfs's pointer to it, cannot
        be read at all, or does not have the columns that it must have.
        """
        if kind := special_file(name):
            raise UsageError(
                f"{name} is not a regular file, but {kind}",
                "Write its content to a file; a list of paths may also come from stdin: blip2 caption -",
            )
        if _is_lfs_pointer(name):
            raise UsageError(f"{name} is a git-lfs pointer, not the file itself", storage.LFS_PULL)
        source: Source = load_object(self.source)(name, columns, *names)
        return source

    def read_metadata(self, name: str) -> Mapping[bytes, bytes]:
        """What a file's writer has noted in it; nothing where it cannot be read: reading its rows says why."""
        if not self.metadata:
            return {}
        import pyarrow as pa

        try:
            return load_object(self.metadata)(name) or {}
        except (OSError, ValueError, pa.ArrowException):
            return {}


def _is_lfs_pointer(name: str) -> bool:
    """Whether a file of this machine is git-lfs's pointer; if it cannot be read, its source says why."""
    try:
        return not storage.is_url(name) and storage.is_lfs_pointer(name)
    except OSError:
        return False
