"""blip2 report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

IMAGES, PAGE = "Images", "Page"


def report(
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="RESULTS...", help="Result files of any format, or folders of shards.", show_default=False
        ),
    ],
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--images",
            metavar="INPUT",
            help="Input of the run, to find images that are not at their row's name; may be repeated.",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    image_column: Annotated[
        str | None,
        typer.Option(
            "--image-column", metavar="NAME", help="Column with the image's path or bytes.", rich_help_panel=IMAGES
        ),
    ] = None,
    image_root: Annotated[
        str | None,
        typer.Option(
            "--image-root",
            metavar="FOLDER",
            help=r"Folder of the images; nothing outside it is read. \[default: the current, else that of the results]",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Fetch the images behind URLs.", rich_help_panel=IMAGES)
    ] = False,
    allow_private: Annotated[
        bool,
        typer.Option(
            "--allow-private",
            help="With --allow-remote: also from this machine and private networks.",
            rich_help_panel=IMAGES,
        ),
    ] = False,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="HTML file to write.", rich_help_panel=PAGE)
    ] = Path("gallery.html"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the page if it exists.", rich_help_panel=PAGE)
    ] = False,
    limit: Annotated[
        int,
        typer.Option("--limit", metavar="N", min=1, max=50_000, help="Number of rows to show.", rich_help_panel=PAGE),
    ] = 10_000,
    thumbnail: Annotated[
        int | None,
        typer.Option(
            "--thumbnail",
            metavar="PIXELS",
            min=0,
            max=1024,
            help=r"Longer side of thumbnails in pixels; 0: none. \[default: 320; above 500 rows 224, above 2,500 144]",
            rich_help_panel=PAGE,
        ),
    ] = None,
    thumbnails_mb: Annotated[
        float,
        typer.Option(
            "--thumbnails-mb",
            metavar="MB",
            min=0,
            help="Total size of the thumbnails at most, in megabytes.",
            rich_help_panel=PAGE,
        ),
    ] = 64.0,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress and no summary on stderr.", rich_help_panel=PAGE)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks, and messages for developers.", rich_help_panel=PAGE)
    ] = False,
) -> None:
    """Write results as one HTML page with thumbnails, search, filters and histograms.

    [bold]blip2 report captions.jsonl --out gallery.html[/bold]
    """
    from blip2cli.cli.failures import reported

    with reported(debug, "No page was written."):
        from blip2cli.commands.report import ReportSettings, ResultFiles
        from blip2cli.commands.report import report as write

        files = ResultFiles(tuple(results), tuple(images or ()), image_column, image_root, allow_remote, allow_private)
        write(files, ReportSettings(out, overwrite, limit, thumbnail, thumbnails_mb, quiet))
