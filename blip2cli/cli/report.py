"""blip2 report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="RESULTS...", help="Result files of any format, or folders of shards.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The page.")] = Path("gallery.html"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the page if it exists.")] = False,
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT",
            help="Input of the run that holds the images, where the rows' names alone do not lead to them; repeatable.",
        ),
    ] = None,
    image_root: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder that image paths start from. [default: here, or the results' own]".replace("[", r"\["),
        ),
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column with the image's path or bytes.")
    ] = None,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Fetch images behind URLs.")] = False,
    allow_private: Annotated[
        bool,
        typer.Option("--allow-private", help="With --allow-remote: from this machine and private networks too."),
    ] = False,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=50_000, help="Rows that are shown.")] = 10_000,
    thumbnail: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            min=0,
            max=1024,
            help=r"Longer side of the thumbnails; 0 for none. \[default: 320, fewer above 500 rows]",
        ),
    ] = None,
    thumbnails_mb: Annotated[
        float,
        typer.Option("--thumbnails-mb", metavar="MB", min=0, help="Megabytes the thumbnails may take in the page."),
    ] = 64.0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary on stderr.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Write results as one HTML page with thumbnails, search, filters and histograms.

    [bold]blip2 report captions.jsonl --out gallery.html[/bold]
    """
    from blip2cli.cli.failures import reported

    with reported(debug):
        from blip2cli.report import ReportSettings, ResultFiles
        from blip2cli.report import report as write

        files = ResultFiles(tuple(results), tuple(images or ()), image_column, image_root, allow_remote, allow_private)
        write(files, ReportSettings(out, overwrite, limit, thumbnail, thumbnails_mb, quiet))
