"""The options of `blip2 report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from blip2cli.commands.pages.bounds import THUMBNAILS_MB, usual_side
from blip2cli.host.files import check_new_file
from blip2cli.settings import Arg, Opt, Options, check_private
from blip2cli.settings.option import AllowPrivate, AllowRemote, ImageColumn, ImageRoot, InputsOfRun, Quiet


@dataclass(frozen=True)
class ReportSettings(Options):
    """Where a report goes, and how large it may be."""

    panel = "Page"
    out: Annotated[Path, Opt("HTML file to write.", ("--out", "-o"), "FILE")] = Path("gallery.html")
    overwrite: Annotated[bool, Opt("Replace the page if it exists.")] = False
    limit: Annotated[int, Opt("Number of rows to show.", metavar="N", min=1, max=50_000)] = 10_000
    thumbnail: Annotated[
        int | None,
        Opt(
            "Longer side of thumbnails in pixels; 0: none. [default: 320; above 500 rows 224, above 2,500 144]",
            metavar="PIXELS",
            min=0,
            max=1024,
        ),
    ] = None
    thumbnails_mb: Annotated[float, Opt("Total size of the thumbnails at most, in megabytes.", metavar="MB", min=0)] = (
        THUMBNAILS_MB
    )
    quiet: Quiet = False

    def validate(self) -> None:
        """Check that the page can be written. Raises UsageError."""
        check_new_file(self.out, self.overwrite, "gallery.html")

    def side(self, rows: int) -> int:
        """Longer side of the thumbnails of a page with so many rows."""
        return usual_side(rows) if self.thumbnail is None else self.thumbnail


@dataclass(frozen=True)
class ResultFiles(Options):
    """Result files, and how they are read.

    Without `images`, the rows' names are used as paths.
    """

    panel = "Images"
    names: Annotated[tuple[str, ...], Arg("RESULTS...", "Result files of any format, or folders of shards.")]
    images: InputsOfRun = ()
    image_column: ImageColumn = None
    image_root: ImageRoot = None
    allow_remote: AllowRemote = False
    allow_private: AllowPrivate = False

    def validate(self) -> None:
        """Check that the options can be used together. Raises UsageError."""
        check_private(self.allow_private, self.allow_remote)
