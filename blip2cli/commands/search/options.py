"""The options of `blip2 search`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from blip2cli.errors import UsageError
from blip2cli.settings import AllowPrivate, Kind, Opt, TaskOptions, check_private
from blip2cli.settings.option import InputsOfEmbed


@dataclass(frozen=True)
class SearchOptions(TaskOptions):
    """The options of `blip2 search` alone."""

    panel = "Search"
    image: Annotated[
        tuple[str, ...], Opt("An image to search for others like it; may be repeated.", metavar="FILE")
    ] = ()
    top_k: Annotated[int, Opt("Rows for each query.", ("--top-k", "--top", "-k"), "K", min=1, max=100_000)] = 10
    rerank: Annotated[
        int | None, Opt("Rank the best N again by ITC + ITM, which reads their images.", metavar="N", min=1)
    ] = None
    index: Annotated[
        Path | None,
        Opt(
            "Index file for many rows (needs the extra `search`), built if missing. Without it, search is exact.",
            metavar="FILE",
        ),
    ] = None
    images: InputsOfEmbed = ()
    image_root: Annotated[
        str | None,
        Opt(
            "Folder of the images; nothing outside it is read. [default: the current, else that of the features]",
            metavar="FOLDER",
        ),
    ] = None
    allow_remote: Annotated[bool, Opt("Fetch the images behind URLs, for --rerank and --report.")] = False
    allow_private: AllowPrivate = False
    report: Annotated[Path | None, Opt("Write the rows as an HTML page too.", metavar="FILE")] = None

    @property
    def kind(self) -> Kind:
        """The kind of checkpoint that compares images with texts."""
        return "retrieval"

    @property
    def needs_input(self) -> bool:
        """False: what is missing is told by its own message."""
        return False

    @property
    def outputs(self) -> dict[str, Path | None]:
        """Files written in addition to the rows, by their option."""
        return {"--report": self.report, "--index": self.index}

    def validate(self) -> None:
        check_private(self.allow_private, self.allow_remote)
        looks = self.rerank is not None or self.report is not None
        for name, value in (
            ("images", self.images),
            ("image-root", self.image_root),
            ("allow-remote", self.allow_remote),
        ):
            if value and not looks:
                raise UsageError(f"--{name} needs --rerank or --report", "Without them no image of a row is read.")
        if self.rerank is not None and self.image:
            raise UsageError("--rerank cannot be used with --image", "ITM compares images with texts.")
        if self.rerank is not None and self.rerank < self.top_k:
            raise UsageError(
                f"--rerank {self.rerank} is below --top-k {self.top_k}", f"Give --rerank {self.top_k} or more."
            )
