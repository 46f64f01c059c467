"""The rows of result files, and the images that they are about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from blip2cli.commands.results.images import ImageOptions, columns_with, originals_of
from blip2cli.commands.results.runs import run_settings
from blip2cli.errors import UsageError
from blip2cli.host import storage
from blip2cli.inputs import ColumnChoice, Sources, open_source
from blip2cli.inputs.originals import Originals
from blip2cli.outputs.journal import parts_folder
from blip2cli.records import Row

RESULTS_FILE = "results file"
"""Name of the column that says which of several files a row is from."""


class ResultOptions(ImageOptions, Protocol):
    """Options that also say which column names the images: those of `blip2 report` and `blip2 select`."""

    @property
    def image_column(self) -> str | None: ...


@dataclass(frozen=True)
class ResultRows:
    """The rows of result files, and their images."""

    names: tuple[str, ...]
    options: ResultOptions

    @cached_property
    def columns(self) -> ColumnChoice:
        """How the files are read."""
        return columns_with(self.options.image_column, self.options)

    @cached_property
    def runs(self) -> dict[str, dict[str, Any]]:
        """The settings of the runs that wrote the files, of those files where they are on record."""
        runs = {name: run_settings(name) for name in self.names}
        return {name: settings for name, settings in runs.items() if settings}

    @cached_property
    def originals(self) -> Originals:
        """Where the images are."""
        return originals_of(self.columns, self.options.images, tuple(self.runs.values()))

    @cached_property
    def source(self) -> Sources:
        """The files as one source. Raises UsageError."""
        return open_results(self.names, self.columns)

    def rows(self) -> Iterator[Row]:
        """All rows, without their images; of several files, each with the name of its own."""
        if len(self.names) == 1:
            yield from (replace(row, image=None) for row in self.source.rows())
            return
        for name in self.names:
            for row in open_source([name], self.columns).rows():
                yield replace(row, image=None, columns={RESULTS_FILE: name, **row.columns})

    def pictures(self, limit: int) -> Iterator[Row]:
        """The first rows with their images, in the order in which these come by."""
        return self.originals.of(islice(self.source.rows(), limit))


def open_results(names: Sequence[str], columns: ColumnChoice) -> Sources:
    """Result files, folders of shards and patterns as one source. Raises UsageError, also for unfinished ones."""
    if "-" in names:
        raise UsageError("results are not read from stdin", "Write them to a file, and give its name.")
    for name in names:
        out = Path(name)
        if not storage.is_url(name) and not out.exists() and parts_folder(out).exists():
            raise UsageError(f"{name} is not finished", "Finish its run: the same command with --resume.")
    return open_source(names, columns)
