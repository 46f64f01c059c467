"""Pictures: the images of a feature file's rows, which it names and does not hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from blip2cli.commands.results.images import ImageOptions, columns_with, originals_of
from blip2cli.features.files import Features
from blip2cli.inputs.columns import choose_columns
from blip2cli.inputs.originals import Originals
from blip2cli.records import Row

COLUMN = "image"
"""The column that names them."""

ROWS_AT_ONCE = 1 << 16
"""Rows whose images are looked for together: an archive that holds them is read once for all of these."""


@dataclass(frozen=True)
class Pictures:
    """Finds the images that rows are about.

    A feature file may come from anybody, and is treated as a manifest is.
    """

    features: Features
    originals: Originals

    @staticmethod
    def of(features: Features, options: ImageOptions, more_images: Sequence[str] = ()) -> Pictures:
        """Those of the file, found as the options say, and among more inputs of images."""
        inputs = (*options.images, *more_images)
        return Pictures(features, originals_of(columns_with(COLUMN, options), inputs, [features.settings]))

    def rows(self, named: Iterable[tuple[int, str]]) -> Iterator[Row]:
        """Rows of these numbers and names, in the order in which their images come by:
        each with it, or an error."""
        columns = choose_columns(str(self.features.path), [COLUMN], self.originals.columns)
        rows = (replace(columns.row({COLUMN: name}, number), index=number) for number, name in named)
        return self.originals.of(rows)

    def of_rows(self, rows: Sequence[int]) -> Iterator[Row]:
        """The rows of these numbers, each with its image or an error: some of them at a time, or, where inputs are
        searched for the images, all in one pass over them."""
        step = max(len(rows), 1) if self.originals.inputs else ROWS_AT_ONCE
        for first in range(0, len(rows), step):
            numbers = rows[first : first + step]
            names = (record[COLUMN] for record in self.features.records(numbers))
            yield from self.rows(zip(numbers, names, strict=True))
