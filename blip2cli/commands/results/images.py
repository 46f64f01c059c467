"""Where the images of results are, as the options of the command say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from blip2cli.inputs import ColumnChoice
from blip2cli.inputs.originals import Originals


class ImageOptions(Protocol):
    """Options that say where images are, such as those of `blip2 report` and `blip2 dedup`."""

    @property
    def images(self) -> tuple[str, ...]: ...
    @property
    def image_root(self) -> str | None: ...
    @property
    def allow_remote(self) -> bool: ...
    @property
    def allow_private(self) -> bool: ...


def columns_with(image_column: str | None, options: ImageOptions) -> ColumnChoice:
    """How results are read that name their images in this column; None for the usual ones."""
    return ColumnChoice(
        image_column,
        root=options.image_root,
        allow_remote=options.allow_remote,
        allow_private=options.allow_private,
    )


def originals_of(columns: ColumnChoice, inputs: Sequence[str], runs: Sequence[Mapping[str, Any]]) -> Originals:
    """The images of results that are read so.

    Args:
        columns: how the results are read.
        inputs: inputs of the runs.
        runs: the settings of the runs, of which the first that names the column of the images counts.
    """
    image_columns = (run.get("image_column") for run in runs)
    image_column = next((name for name in image_columns if isinstance(name, str)), None)
    return Originals(columns, tuple(inputs), image_column)
