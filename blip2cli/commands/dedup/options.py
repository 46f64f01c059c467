"""The options of `blip2 dedup`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from blip2cli.errors import UsageError
from blip2cli.settings import Kind, Opt, TaskOptions
from blip2cli.settings.numbers import check_cosine
from blip2cli.settings.option import AllowPrivate, AllowRemote, InputsOfEmbed, ManifestColumn, check_private


@dataclass(frozen=True)
class DedupOptions(TaskOptions):
    """The options of `blip2 dedup` alone."""

    panel = "Duplicates"
    threshold: Annotated[
        float, Opt("Least cosine of an image's features with those of the image kept for it.", metavar="X")
    ] = 0.95
    keep: Annotated[
        Literal["first", "largest", "best-score"],
        Opt("Which image of a group is kept: the first, the one with most pixels, or the best of --score-column."),
    ] = "first"
    score_column: Annotated[
        str | None, Opt("Column of numbers for --keep best-score; the highest is best.", metavar="NAME")
    ] = None
    features: Annotated[
        Literal["itc", "qformer", "vision"], Opt("Which features are computed, if images are given.")
    ] = "itc"
    save_features: Annotated[
        Path | None,
        Opt("Keep the computed features in this Parquet file, which the same command uses again.", metavar="FILE"),
    ] = None
    kept_list: Annotated[
        Path | None,
        Opt("Write the paths of the kept images too, as a .txt input of other commands.", ("--list",), "FILE"),
    ] = None
    report: Annotated[Path | None, Opt("Write the groups as an HTML page too.", metavar="FILE")] = None
    skip_content: Annotated[bool, Opt("Compare features only, not the content of image files.")] = False
    images: InputsOfEmbed = ()
    image_column: ManifestColumn = None
    image_root: Annotated[
        str | None,
        Opt(
            "Folder of the images; nothing outside it is read. [default: the current, else that of the input]",
            metavar="FOLDER",
        ),
    ] = None
    allow_remote: AllowRemote = False
    allow_private: AllowPrivate = False

    @property
    def kind(self) -> Kind:
        """The kind of checkpoint that has these features."""
        return "retrieval" if self.features == "itc" else "generation"

    @property
    def needs_input(self) -> bool:
        """False: what is missing is told by its own message."""
        return False

    @property
    def outputs(self) -> dict[str, Path | None]:
        """Files written in addition to the rows, by their option."""
        return {"--report": self.report, "--list": self.kept_list, "--save-features": self.save_features}

    def validate(self) -> None:
        check_private(self.allow_private, self.allow_remote)
        check_cosine("--threshold", self.threshold)
        if (self.keep == "best-score") != (self.score_column is not None):
            raise UsageError(
                "--keep best-score and --score-column belong together",
                "For example: --keep best-score --score-column itm",
            )
        if self.skip_content and self.keep == "largest":
            raise UsageError("--keep largest cannot be used with --skip-content", "It reads the images.")
        if self.kept_list is not None and self.kept_list.suffix != ".txt":
            raise UsageError(
                f"{self.kept_list} does not end in .txt, by which lists of images are recognised",
                f"Type: --list {self.kept_list.with_suffix('.txt')}",
            )
        if self.save_features is not None and self.save_features.suffix != ".parquet":
            raise UsageError(
                f"--save-features {self.save_features} does not end in .parquet", "Features are kept in Parquet."
            )
