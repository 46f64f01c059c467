"""`blip2 report`: results as one HTML page without other files; and `write_report` for
other commands."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip2cli.commands.report.options import ReportSettings, ResultFiles
from blip2cli.host.files import check_apart, write_atomically
from blip2cli.host.stopwatch import since_start

if TYPE_CHECKING:
    from blip2cli.records import Row


@dataclass(frozen=True)
class ReportContent:
    """The content of a report: rows, rows with errors, rows with a thumbnail; its size;
    what was left out."""

    rows: int
    errors: int
    thumbnails: int
    size: int
    left_out: tuple[str, ...]

    def lines(self, page: Path) -> Iterator[str]:
        """What is said of the page: a line, and another for what was left out."""
        rows = "row" if self.rows == 1 else "rows"
        yield (
            f"{page}: {self.rows:,} {rows}, {self.errors:,} with errors, "
            f"{self.thumbnails:,} with thumbnails, {self.size / 1e6:.1f} MB, "
            f"in {since_start():.1f} s"
        )
        for line in self.left_out:
            yield f"  {line}"


def write_report(
    rows: Iterable[Row],
    settings: ReportSettings,
    title: str,
    runs: Mapping[str, Mapping[str, Any]],
    pictures: Iterable[Row] | None = None,
    total: int | None = None,
) -> ReportContent:
    """Write the page. Raises UsageError if it may not be written, OutputError if it
    cannot.

    Args:
        rows: output rows: `columns` are all columns but the image's, `error` among them. Those above the limit are
            left out.
        settings: where the page goes, and its bounds.
        title: what the rows come from.
        runs: name → settings of each run that the rows are of.
        pictures: rows in any order, by their `index` counted from 0, each with its `image`, or the `error` why there is
            none; by default the rows themselves.
        total: how many rows there are with those above the limit.
    """
    from blip2cli.commands.pages.thumbnails import album_of
    from blip2cli.commands.report.page import Page, render
    from blip2cli.commands.report.table import table_of
    from blip2cli.host.terminal import show_note

    settings.validate()
    table = table_of(rows, settings.limit, total)
    images = table.pictures if pictures is None else pictures
    album = album_of(images, len(table), settings.side(len(table)), settings.thumbnails_mb, settings.quiet)
    page = Page(title, table, album, runs, settings)
    data = render(page)
    write_atomically(settings.out, data)
    written = ReportContent(len(table), table.failed, len(album.place), len(data), page.left_out)
    if not settings.quiet:
        for line in written.lines(settings.out):
            show_note(line)
    return written


def report(files: ResultFiles, settings: ReportSettings) -> ReportContent:
    """Write the page of result files.

    Raises Blip2Error as `write_report` does, and where they cannot be read.
    """
    from blip2cli.commands.results.rows import ResultRows
    from blip2cli.host.terminal import loading

    check_apart({"--out": settings.out}, files.names)
    files.validate()
    with loading("results", settings.quiet, drawn_only=True):
        results = ResultRows(files.names, files)
        total = results.source.count()
    check_apart({"--out": settings.out}, results.originals.files)
    settings.validate()
    title = ", ".join(os.path.basename(os.path.normpath(name)) for name in files.names)
    return write_report(results.rows(), settings, title, results.runs, results.pictures(settings.limit), total)
