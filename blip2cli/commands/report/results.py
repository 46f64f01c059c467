"""Result files: their rows, the images that these are about, and the settings of the runs that wrote them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip2cli.commands.report.table import RESULTS_FILE
from blip2cli.errors import UsageError
from blip2cli.host import storage
from blip2cli.inputs import ColumnChoice, Sources, format_of, metadata_in, open_source
from blip2cli.inputs.originals import Originals
from blip2cli.inputs.walk import walk
from blip2cli.outputs import FORMATS
from blip2cli.outputs.journal import hidden_beside, parts_folder, settings_in
from blip2cli.records import Row
from blip2cli.settings.metadata import settings_of

if TYPE_CHECKING:
    from blip2cli.commands.report import ResultFiles


@dataclass(frozen=True)
class ResultRows:
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
    def runs(self) -> dict[str, dict[str, Any]]:
        """The settings of the runs that wrote the files, as far as they are on record: in the files, or beside them."""
        settings = {name: _settings_of(name) for name in self.files.names}
        return {name: run_settings for name, run_settings in settings.items() if run_settings}

    @cached_property
    def originals(self) -> Originals:
        """Where the images are."""
        image_columns = (run.get("image_column") for run in self.runs.values())
        return Originals(
            self.columns, self.files.images, next((name for name in image_columns if isinstance(name, str)), None)
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
        """All rows, without their images; of several files, each with the name of its own."""
        names = self.files.names
        if len(names) == 1:
            yield from (replace(row, image=None) for row in self.source.rows())
            return
        for name in names:
            for row in open_source([name], self.columns).rows():
                yield replace(row, image=None, columns={RESULTS_FILE: name, **row.columns})

    def pictures(self) -> Iterator[Row]:
        """The rows that are taken, with their images, in the order in which these come by."""
        return self.originals.of(islice(self.source.rows(), self.limit))


def _settings_of(name: str) -> dict[str, Any]:
    if not storage.is_url(name) and os.path.isdir(name):
        files = islice(walk(name, lambda file: format_of(file) is not None), 1)
        return next(map(_in_schema, files), {}) or _in_journal(name)
    return _in_schema(name) or _in_journal(name)


def _in_journal(name: str) -> dict[str, Any]:
    """What the hidden file says that stands beside results."""
    if storage.is_url(name):
        return {}
    real = Path(os.path.realpath(name))
    indexes = {entry.index for entry in FORMATS.values()}
    headers = (settings_in(hidden_beside(real, index)) for index in sorted(indexes))
    return dict(next(filter(None, headers), {}))


def _in_schema(name: str) -> dict[str, Any]:
    """What the file itself says, in its format's metadata."""
    return settings_of(metadata_in(name))
