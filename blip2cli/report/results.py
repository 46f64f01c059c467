"""Result files: their rows, the images that these are about, and the settings of the runs that wrote them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from blip2cli import storage
from blip2cli.errors import Blip2Error, UsageError
from blip2cli.inputs import MANIFESTS, ColumnChoice, Sources, open_source, suffix_of
from blip2cli.inputs.folder import walk
from blip2cli.journal import path_of, settings_in
from blip2cli.outputs import parts_folder
from blip2cli.records import ImageRef, Row
from blip2cli.report import ResultFiles

NUMBERED = re.compile(r"(.+)#\d+")
"""NAME#ROW: an image whose bytes stand in a manifest."""


ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


@dataclass(frozen=True)
class Results:
    """The rows of result files, and their images, up to a limit."""

    files: ResultFiles
    limit: int

    @cached_property
    def columns(self) -> ColumnChoice:
        """How the files are read."""
        files = self.files
        return ColumnChoice(
            files.image_column,
            root=files.image_root,
            allow_remote=files.allow_remote,
            allow_private=files.allow_private,
        )

    @cached_property
    def source(self) -> Sources:
        """The files as one source. Raises UsageError."""
        for name in self.files.names:
            out = Path(name)
            if not storage.is_url(name) and not out.exists() and parts_folder(out).exists():
                raise UsageError(f"{name} is not finished", "Finish its run: the same command with --resume.")
        return open_source(self.files.names, self.columns)

    def rows(self) -> Iterator[Row]:
        """All rows, without their images."""
        return (replace(row, image=None) for row in self.source.rows())

    def pictures(self) -> Iterator[tuple[int, ImageRef]]:
        """Where the images of the rows are that are taken, by the rows' numbers."""
        within: dict[str, dict[str, list[int]]] = {name: {} for name in self.files.images}
        for row in islice(self.source.rows(), self.limit):
            holders = self.files.images or self._holders(row)
            for holder in holders:
                within.setdefault(holder, {}).setdefault(row.name, []).append(row.index)
            if not holders and row.image is not None:
                yield row.index, self._found(row.name, row.image)
        for holder, wanted in within.items():
            try:
                yield from _taken(open_source([holder], replace(self.columns, image=None, root=None)).rows(), wanted)
            except Blip2Error:
                if holder in self.files.images:
                    raise  # what a row's name leads to need not be there any more

    def _holders(self, row: Row) -> Sequence[str]:
        """The manifest or archive that holds the image of a row, if its name says so."""
        if row.image is None or row.image.path is None or storage.is_url(row.image.path):
            return ()
        numbered = NUMBERED.fullmatch(row.name)
        above = [numbered[1]] if numbered else list(map(str, Path(row.name).parents))
        return [name for name in above if suffix_of(name) in MANIFESTS and os.path.isfile(name)][:1]

    def _found(self, name: str, image: ImageRef) -> ImageRef:
        """The image's file: from this folder on, where a run named it so, or else from that of the results."""
        if self.columns.root is not None or image.path is None or storage.is_url(image.path):
            return image
        found = next(filter(os.path.exists, (name, _unescaped(name))), None)
        return image if found is None else replace(image, path=found)


def _unescaped(name: str) -> str:
    """The path of a file with bytes in its name that are no UTF-8, which rows show as backslash escapes."""
    return os.fsdecode(ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), name.encode()))


def _taken(rows: Iterator[Row], wanted: dict[str, list[int]]) -> Iterator[tuple[int, ImageRef]]:
    """The images of those names, for all rows that want them."""
    left = set(wanted)
    while left and (row := next(rows, None)):
        if row.name in left and row.image is not None:
            left.remove(row.name)
            yield from ((number, row.image) for number in wanted[row.name])


def runs_of(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The settings of the runs that wrote the results, as far as they are on record: in the files, or beside them."""
    settings = {name: _settings_of(name) for name in names}
    return {name: found for name, found in settings.items() if found}


def _settings_of(name: str) -> dict[str, Any]:
    if not storage.is_url(name) and os.path.isdir(name):
        files = islice(walk(name, lambda file: suffix_of(file) in MANIFESTS), 1)
        return next(map(_in_schema, files), {}) or _in_journal(name)
    return _in_schema(name) or _in_journal(name)


def _in_journal(name: str) -> dict[str, Any]:
    return {} if storage.is_url(name) else settings_in(path_of(Path(os.path.normpath(name))))


def _in_schema(name: str) -> dict[str, Any]:
    """What the metadata of a Parquet or Arrow file say."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from blip2cli.outputs.arrow import METADATA_KEY

    try:
        if suffix_of(name) == ".parquet":
            with storage.open_binary(name) as file:
                metadata = pq.read_schema(file).metadata
        elif suffix_of(name) in (".arrow", ".feather", ".ipc"):
            with storage.open_binary(name) as file:
                metadata = pa.ipc.open_file(file).schema.metadata
        else:
            return {}
        told = json.loads((metadata or {}).get(METADATA_KEY, b"{}"))
    except (pa.ArrowException, OSError, ValueError, RecursionError):  # a stream, or not ours
        return {}
    return told if isinstance(told, dict) else {}
