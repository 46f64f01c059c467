"""Hugging Face's imagefolder: images with a metadata file beside them, at the top of a
folder or in its subfolders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from blip2cli.errors import UsageError
from blip2cli.inputs.folder import image_row
from blip2cli.inputs.image_formats import suffix_in
from blip2cli.inputs.manifest import Table
from blip2cli.inputs.names import escaped
from blip2cli.inputs.source import Sources
from blip2cli.inputs.walk import images_below
from blip2cli.records import Row

if TYPE_CHECKING:
    import pyarrow as pa

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Names of metadata files; a folder has one of them at most."""


@dataclass(frozen=True)
class ImageFolder(Table):
    """The rows of the metadata, in their order, then the images that it does not name, so
    that none is lost.

    Args:
        name: the folder as typed.
        metadata: the metadata files' manifests, whose images are named relative to the files.
    """

    name: str
    metadata: Sources
    not_images: Counter[str] = field(default_factory=Counter)

    def rows(self, start: int = 0) -> Iterator[Row]:
        named: set[str] = set()
        number = 0
        for number, row in enumerate(self._described(named), 1):
            if number > start:
                yield row
        yield from map(image_row, islice(self._others(named), max(start - number, 0), None))

    def count(self) -> int | None:
        named: set[str] = set()
        self.not_images.clear()
        number = sum(1 for _ in self._described(named)) + sum(1 for _ in self._others(named, self.not_images))
        self.not_images.subtract(
            suffix_in(file) for file in metadata_files(self.name) if suffix_in(file) in self.not_images
        )
        return number

    def unread(self) -> Counter[str]:
        return self.not_images

    def column_names(self) -> list[str]:
        return self.metadata.column_names()

    def schema(self) -> pa.Schema:
        return self.metadata.schema()

    def _described(self, named: set[str]) -> Iterator[Row]:
        """The rows of the metadata under their paths, which are added to those named."""
        for row in self.metadata.rows():
            path = row.image.path if row.image else None
            if path is not None:
                named.add(os.path.normpath(path))
                row = replace(row, index=0, name=escaped(path))
            yield row

    def _others(self, named: set[str], not_images: Counter[str] | None = None) -> Iterator[str]:
        return (path for path in images_below(self.name, not_images) if os.path.normpath(path) not in named)


def metadata_files(folder: str, written: str | None = None) -> list[str]:
    """The metadata files of a folder and its direct subfolders, except one in the folder
    that is being written to.

    Raises UsageError for two in one folder.
    """
    try:
        with os.scandir(folder) as entries:
            below = sorted(entry.path for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:  # which the walk reports
        return []
    ours = None if written is None else os.path.realpath(written)
    return [file for place in (folder, *below) if os.path.realpath(place) != ours for file in _metadata_file(place)]


def _is_there(file: str) -> bool:
    return os.path.lexists(file) and not os.path.isdir(file)


def _metadata_file(folder: str) -> list[str]:
    files = [file for name in METADATA if _is_there(file := os.path.join(folder, name))]
    if len(files) > 1:
        names = " and ".join(os.path.basename(file) for file in files)
        raise UsageError(
            f"{folder} has {names}", "Keep the one that says what the images are, and move the other away."
        )
    return files
