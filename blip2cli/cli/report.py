"""blip2 report."""

from __future__ import annotations

from blip2cli.cli.options import command_of
from blip2cli.commands.report.options import ReportSettings, ResultFiles


@command_of(ResultFiles, ReportSettings, interrupted="No page was written.")
def report(files: ResultFiles, settings: ReportSettings) -> None:
    """Write results as one HTML page: a card for each image, counts of answers as filters, search, and export.

    [bold]blip2 report captions.jsonl --out gallery.html[/bold]
    """
    from blip2cli.commands.report import report as write

    write(files, settings)
