"""Writes each row with its group, and the list of the images that are kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from blip2cli import __version__
from blip2cli.commands.dedup.options import DedupOptions
from blip2cli.features.duplicates import COLUMNS as ADDED
from blip2cli.features.duplicates import UNUSABLE, Duplicates
from blip2cli.host.files import write_atomically
from blip2cli.host.terminal import show_warning
from blip2cli.outputs import open_output
from blip2cli.outputs.layout import Layout
from blip2cli.records import Column, Result, Row, RowError
from blip2cli.settings import Job

if TYPE_CHECKING:
    from blip2cli.commands.results.pictures import Pictures
    from blip2cli.features.files import Features
    from blip2cli.outputs.target import Target

KINDS: tuple[Literal["integer", "boolean", "string", "number"], ...] = (
    "integer", "boolean", "string", "number", "string",
)  # fmt: skip
"""Of the columns that are added."""

COLUMNS = tuple(Column(name, kind) for name, kind in zip(ADDED, KINDS, strict=True))

ROWS_AT_ONCE = 4096
"""Rows that are read and written together."""


def write(job: Job, target: Target, features: Features, duplicates: Duplicates) -> int:
    """Write all rows, in their order; gives how many of them have errors. Raises OutputError."""
    layout = _layout(job, features)
    output = open_output(target, job.output, layout, layout.metadata)
    errors = 0
    for results in results_of(features, duplicates, layout):
        errors += sum(result.error is not None for result in results)
        output.write(results)
    output.finish()
    return errors


def results_of(features: Features, duplicates: Duplicates, layout: Layout) -> Iterator[list[Result]]:
    """All rows with their groups, in lists."""
    names = _names_of_kept(features, duplicates)
    for first in range(0, features.rows, ROWS_AT_ONCE):
        rows = range(first, min(first + ROWS_AT_ONCE, features.rows))
        results = []
        for row, record in zip(rows, features.records(rows), strict=True):
            kept = record["image"] if duplicates.is_kept[row] else names[int(duplicates.kept[row])]
            values = (*duplicates.verdict(row), kept)
            carried = {name: record[name] for name in layout.carried}
            results.append(Result(Row(row, record["image"], columns=carried), values, _error(record, duplicates, row)))
        yield results


def _names_of_kept(features: Features, duplicates: Duplicates) -> dict[int, str]:
    """The names of the rows that are kept for others. They may be anywhere, so they are read once, in order."""
    rows = np.unique(duplicates.kept[~duplicates.is_kept]).tolist()
    names: dict[int, str] = {}
    for first in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[first : first + ROWS_AT_ONCE]
        names.update((row, record["image"]) for row, record in zip(some, features.records(some), strict=True))
    return names


def _error(record: dict[str, Any], duplicates: Duplicates, row: int) -> RowError | None:
    if record["error"]:
        return RowError.parsed(str(record["error"]))
    return UNUSABLE if duplicates.unusable[row] else None


def _layout(job: Job, features: Features) -> Layout:
    options = job.options_as(DedupOptions)
    metadata = {
        "task": job.task,
        "features": features.settings.get("features"),
        "model": features.settings.get("model"),
        "revision": features.settings.get("revision"),
        "threshold": options.threshold,
        "keep": options.keep,
        "score_column": options.score_column,
        "skip_content": options.skip_content,
        "version": __version__,
    }
    return Layout.carrying(features.carried, COLUMNS, metadata)


def write_list(path: Path, pictures: Pictures, duplicates: Duplicates) -> int:
    """Write the paths of the images that are kept, in their order; gives how many. Raises OutputError.

    Paths start from the list's folder, as those of every such list do. Images within archives and tables have none.
    """
    kept = duplicates.is_kept.nonzero()[0].tolist()
    folder = os.path.realpath(path.parent)
    lines: dict[int, bytes] = {}
    for row in pictures.of_rows(kept):
        line = _line(row, folder)
        if line is not None and b"\n" not in line and not line.endswith(b"\r"):  # which a list cannot hold
            lines[row.index] = line + b"\n"
    write_atomically(path, b"".join(lines[row] for row in sorted(lines)))
    if len(lines) < len(kept):
        show_warning(
            f"{len(kept) - len(lines):,} kept images have no path of their own, as in archives, and are not in {path}; "
            "the rows written have them all"
        )
    return len(lines)


def _line(row: Row, folder: str) -> bytes | None:
    """The path of a row's image as a list has it; None for one without a path."""
    image = row.image
    if image is None:
        return os.fsencode(row.name) if row.error is None or row.error.kind == "missing" else None
    if image.data is not None or image.size is not None:
        return None
    if image.url is not None or image.path is None or "://" in image.path:
        return os.fsencode(image.url or image.path or row.name)
    if os.path.isabs(image.path):
        return os.fsencode(image.path)
    return os.fsencode(os.path.relpath(os.path.realpath(image.path), folder))
