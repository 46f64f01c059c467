"""Where rows go: one file a format, and `open_output`, which chooses by the suffix of --out."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from blip2cli.errors import UsageError
from blip2cli.journal import Commit, Journal, begun
from blip2cli.records import Column, Result

if TYPE_CHECKING:
    import pyarrow as pa

    from blip2cli.job import OutputSettings

FORMATS = {
    ".jsonl": "blip2cli.outputs.jsonl:JsonlOutput",
    ".ndjson": "blip2cli.outputs.jsonl:JsonlOutput",
    ".parquet": "blip2cli.outputs.parquet:ParquetOutput",
}
"""Suffix → class of the output that writes it. A class is made from (path, Layout, Journal)."""

RESERVED = ("image", "error")


class Output(Protocol):
    """Takes rows in input order. `committed` is what an earlier run has committed."""

    committed: Commit

    def write(self, results: Sequence[Result]) -> None:
        """Take rows, the last of which is its input row's last; they may wait in memory."""

    def commit(self) -> None:
        """Put what was taken on disk, for good."""

    def finish(self) -> None:
        """Commit, and put the output in its final form."""


@dataclass(frozen=True)
class Layout:
    """The columns of an output: `image`, the carried ones, the task's, `error`.

    `carried` maps a manifest's column to its name in the output, which differs where the task has a column of that
    name. `schema` gives the carried columns' Arrow types, `metadata` the settings of the run.
    """

    carried: Mapping[str, str]
    columns: tuple[Column, ...]
    schema: Callable[[], pa.Schema]
    metadata: Mapping[str, Any]

    def record(self, result: Result) -> dict[str, Any]:
        """A result as names and values, in the order of the columns."""
        row = result.row
        record: dict[str, Any] = {"image": row.name}
        record.update((shown, row.columns.get(name)) for name, shown in self.carried.items())
        record.update((column.name, value) for column, value in zip(self.columns, result.values, strict=True))
        record["error"] = result.error
        return record


def carried_names(names: Sequence[str], columns: tuple[Column, ...]) -> dict[str, str]:
    """Names of carried columns in the output: `input_NAME` where NAME is the output's own."""
    own = {*RESERVED, *(column.name for column in columns)}
    shown = {name: name for name in names}
    for name in own.intersection(names):
        while shown[name] in own or shown[name] in names:
            shown[name] = f"input_{shown[name]}"
    return shown


def check_output(settings: OutputSettings) -> None:
    """See that the output can be written, before anything slow is done. Raises UsageError."""
    for path in (settings.out, settings.summary):
        if path is not None:
            _check_folder(path)
    out = settings.out
    if out is None:
        return
    if out.suffix.lower() not in FORMATS:
        raise UsageError(f"cannot tell the format of {out}", f"Its name must end in one of {', '.join(FORMATS)}.")
    if out.is_dir():
        raise UsageError(f"{out} is a folder", "Name a file for --out.")
    if begun(out) and not settings.resume and not settings.overwrite:
        state = "exists" if out.exists() else "was begun and not finished"
        raise UsageError(f"{out} {state}", "Use --resume to go on with it, --overwrite to replace it, or another name.")


def open_output(settings: OutputSettings, layout: Layout, fingerprint: Mapping[str, Any]) -> Output:
    """The output that the settings name, ready to take rows, what an earlier run left torn repaired."""
    if settings.out is None:
        return _stdout(layout)
    out = settings.out
    journal = Journal(out, dict(fingerprint))
    if begun(out) and settings.resume:
        journal.resume(out)
    else:
        _clear(out, journal)
        journal.start()
    module, _, cls = FORMATS[out.suffix.lower()].partition(":")
    output: Output = getattr(import_module(module), cls)(out, layout, journal)
    return output


def _stdout(layout: Layout) -> Output:
    from blip2cli.outputs.stdout import JsonlStream, TableStream

    return TableStream(layout) if sys.stdout.isatty() else JsonlStream(layout)


def _check_folder(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise UsageError(f"cannot write {path}: there is no folder {folder}", f"Make it: mkdir -p {folder}")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write {path}: {folder} is not writable", "Choose another folder, or change its mode.")


def _clear(out: Path, journal: Journal) -> None:
    for path in (out, journal.path):
        path.unlink(missing_ok=True)
    shutil.rmtree(parts_folder(out), ignore_errors=True)


def parts_folder(out: Path) -> Path:
    """Where a format keeps committed parts until they are joined."""
    return out.with_name(out.name + ".parts")
