"""`blip2 report`: results as one HTML page without other files; and `write_report` for other commands."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip2cli.errors import UsageError
from blip2cli.host.files import check_apart, check_new_file, write_atomically

if TYPE_CHECKING:
    from blip2cli.records import Row

SIDES = ((500, 320), (2_500, 224))
"""Side in pixels of the thumbnails of a page with up to so many rows."""

SIDE = 144
"""That of a page with more rows."""


@dataclass(frozen=True)
class ReportSettings:
    """Where a report goes, and how large it may be.

    Args:
        out: the page.
        overwrite: whether an existing page is replaced.
        limit: rows at most.
        thumbnail: longer side of a thumbnail in pixels, 0 for none, None to choose it by the number of rows.
        thumbnails_mb: megabytes that the thumbnails may take in the page.
        quiet: no progress and no summary.
    """

    out: Path = Path("gallery.html")
    overwrite: bool = False
    limit: int = 10_000
    thumbnail: int | None = None
    thumbnails_mb: float = 64.0
    quiet: bool = False

    def check(self) -> None:
        """Check that the page can be written. Raises UsageError."""
        check_new_file(self.out, self.overwrite, "gallery.html")

    def side(self, rows: int) -> int:
        """Longer side of the thumbnails of a page with so many rows."""
        if self.thumbnail is not None:
            return self.thumbnail
        return next((side for most, side in SIDES if rows <= most), SIDE)


@dataclass(frozen=True)
class ResultFiles:
    """Result files, and how they are read.

    Args:
        names: the files, or folders of shards.
        images: inputs of the run, in which images are found by the rows' names; without them, the names are used as
            paths.
        image_column: column with the image's path or bytes, None for the first of the usual names.
        image_root: folder that image paths start from, outside of which none is read; None for the working folder or
            else the results' own, and no bound.
        allow_remote: whether images behind URLs are fetched.
        allow_private: whether from this machine and private networks too.
    """

    names: tuple[str, ...]
    images: tuple[str, ...] = ()
    image_column: str | None = None
    image_root: str | None = None
    allow_remote: bool = False
    allow_private: bool = False

    def check(self) -> None:
        """Check that the options can be used together. Raises UsageError."""
        if self.allow_private and not self.allow_remote:
            raise UsageError("--allow-private needs --allow-remote", "Give both, or neither.")
        if "-" in self.names:
            raise UsageError("results are not read from stdin", "Write them to a file, and give its name.")


@dataclass(frozen=True)
class ReportContent:
    """The content of a report: rows, rows with errors, rows with a thumbnail; its size; what was left out."""

    rows: int
    errors: int
    thumbnails: int
    size: int
    left_out: tuple[str, ...]


def write_report(
    rows: Iterable[Row],
    settings: ReportSettings,
    title: str,
    runs: Mapping[str, Mapping[str, Any]],
    pictures: Iterable[Row] | None = None,
    total: int | None = None,
) -> ReportContent:
    """Write the page. Raises UsageError if it may not be written, OutputError if it cannot.

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
    from blip2cli.commands.report.page import Page, render
    from blip2cli.commands.report.table import table_of
    from blip2cli.commands.report.thumbnails import album_of
    from blip2cli.host.terminal import show_report

    settings.check()
    table = table_of(rows, settings.limit, total)
    album = album_of(table.pictures if pictures is None else pictures, table, settings)
    page = Page(title, table, album, runs, settings)
    data = render(page)
    write_atomically(settings.out, data)
    written = ReportContent(len(table), table.failed, len(album.place), len(data), page.left_out)
    if not settings.quiet:
        show_report(settings.out, written)
    return written


def report(files: ResultFiles, settings: ReportSettings) -> ReportContent:
    """Write the page of result files. Raises Blip2Error as `write_report` does, and where they cannot be read."""
    from blip2cli.commands.report.results import ResultRows

    check_apart({"--out": settings.out}, files.names)
    files.check()
    results = ResultRows(files, settings.limit)
    total = results.source.count()
    check_apart({"--out": settings.out}, results.originals.files)
    settings.check()
    title = ", ".join(os.path.basename(os.path.normpath(name)) for name in files.names)
    return write_report(results.rows(), settings, title, results.runs, results.pictures(), total)
