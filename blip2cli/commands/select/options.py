"""The options of `blip2 select`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from blip2cli.errors import UsageError
from blip2cli.settings import Opt, TaskOptions
from blip2cli.settings.option import AllowPrivate, AllowRemote, ImageColumn, ImageRoot, InputsOfRun, check_private


@dataclass(frozen=True)
class SelectOptions(TaskOptions):
    """The options of `blip2 select` alone."""

    panel = "Selection"
    where: Annotated[
        str | None,
        Opt("Condition in SQL over the columns, such as \"answer = 'yes' and probability > 0.9\".", metavar="SQL"),
    ] = None
    limit: Annotated[int | None, Opt("Stop after this many selected rows.", metavar="N", min=1)] = None
    images_to: Annotated[Path | None, Opt("Copy the selected rows' images to this folder.", metavar="FOLDER")] = None
    link: Annotated[bool, Opt("With --images-to: symbolic links instead of copies.")] = False
    images: InputsOfRun = ()
    image_column: ImageColumn = None
    image_root: ImageRoot = None
    allow_remote: AllowRemote = False
    allow_private: AllowPrivate = False

    @property
    def needs_input(self) -> bool:
        return False  # what is missing is said by the command, in other words

    def validate(self) -> None:
        check_private(self.allow_private, self.allow_remote)
        if self.link and self.images_to is None:
            raise UsageError("--link needs --images-to", "Name the folder that the links go to.")
        if self.where is not None and not self.where.strip():
            raise UsageError("--where is empty", "For example: --where \"answer = 'yes'\"; or leave it out.")
