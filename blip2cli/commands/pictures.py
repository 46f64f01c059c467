"""Pictures: the images of a feature file's rows, which it names and does not hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from blip2cli.features.files import Features
from blip2cli.inputs import ColumnChoice
from blip2cli.inputs.columns import choose_columns
from blip2cli.inputs.originals import Originals
from blip2cli.records import Row

COLUMN = "image"
"""The column that names them."""


class PictureOptions(Protocol):
    """Options that say where images are: see those of `blip2 search` and `blip2 dedup`."""

    @property
    def images(self) -> tuple[str, ...]: ...
    @property
    def image_root(self) -> str | None: ...
    @property
    def allow_remote(self) -> bool: ...
    @property
    def allow_private(self) -> bool: ...


@dataclass(frozen=True)
class Pictures:
    """Finds the images that rows are about.

    A feature file may come from anybody, and is treated as a manifest is.
    """

    features: Features
    originals: Originals

    @staticmethod
    def of(features: Features, options: PictureOptions, more_images: Sequence[str] = ()) -> Pictures:
        """Those of the file, found as the options say, and among more inputs of images."""
        columns = ColumnChoice(
            COLUMN,
            root=options.image_root,
            allow_remote=options.allow_remote,
            allow_private=options.allow_private,
        )
        noted = features.settings.get("image_column")
        image_column = noted if isinstance(noted, str) else None
        return Pictures(features, Originals(columns, (*options.images, *more_images), image_column))

    def rows(self, named: Iterable[tuple[int, str]]) -> Iterator[Row]:
        """Rows of these numbers and names, in the order in which their images come by:
        each with it, or an error."""
        columns = choose_columns(str(self.features.path), [COLUMN], self.originals.columns)
        rows = (replace(columns.row({COLUMN: name}, number), index=number) for number, name in named)
        return self.originals.of(rows)
