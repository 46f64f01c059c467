"""What all manifests share: which column is the image's, which are carried, and how a record becomes a Row."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blip2cli.errors import UsageError
from blip2cli.inputs.folder import printable
from blip2cli.records import ImageRef, Row

if TYPE_CHECKING:
    from blip2cli.inputs import ColumnChoice

IMAGE_COLUMNS = ("image", "image_path", "path", "file_name", "filename", "filepath", "file", "img")
"""Names that are tried, in this order, where --image-column is not given."""


@dataclass(frozen=True)
class Layout:
    """The columns of one manifest: the image's, the text's (None where it has none), and those carried through.

    Where only texts are used, `images_needed` is false: the image column names the rows, and no image is read.
    """

    manifest: str
    image: str | None
    text: str | None
    carried: tuple[str, ...]
    images_needed: bool = True

    def row(self, record: Mapping[str, Any], number: int) -> Row:
        """The Row of one record; `number` counts the manifest's rows from 0 and names an image that has no path."""
        columns = {name: record.get(name) for name in self.carried}
        text = record.get(self.text) if self.text else None
        error = None
        if self.text and not isinstance(text, str):
            error = f"missing: no text in column {self.text}" if text is None else None
            text = None if text is None else str(text)
        text = text and printable(text)
        unnamed = f"{printable(self.manifest)}#{number}"
        if self.image is None:
            return Row(0, unnamed, None, columns, text, error)
        name, image, fault = self._image(record.get(self.image), unnamed)
        if not self.images_needed:
            return Row(0, name, None, columns, text, error)
        return Row(0, name, image, columns, text, fault or error)

    def broken(self, number: int, reason: str) -> Row:
        """The error row for a record that cannot be read."""
        return Row(0, f"{printable(self.manifest)}#{number}", error=f"unreadable: {reason}")

    def _image(self, cell: Any, unnamed: str) -> tuple[str, ImageRef | None, str | None]:
        if isinstance(cell, Mapping) and ("bytes" in cell or "path" in cell):  # the Hugging Face struct
            path, data = cell.get("path"), cell.get("bytes")
            if isinstance(data, bytes):
                return (printable(path) if isinstance(path, str) and path else unnamed), ImageRef(data=data), None
            cell = path
        if isinstance(cell, bytes):
            return unnamed, ImageRef(data=cell), None
        if isinstance(cell, str) and cell:
            if "://" in cell:
                return printable(cell), None, "unsupported: a URL in a manifest is not fetched"
            return printable(cell), ImageRef(path=os.path.join(os.path.dirname(self.manifest), cell)), None
        if cell is None or cell == "":
            return unnamed, None, f"missing: nothing in column {self.image}"
        return unnamed, None, f"unsupported: column {self.image} holds {type(cell).__name__}"


def lay_out(manifest: str, names: list[str], columns: ColumnChoice) -> Layout:
    """Choose the columns of a manifest. Raises UsageError, with the columns there are, where one is missing."""
    there = f"It has: {', '.join(names) or 'no columns'}."
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        raise UsageError(f"{manifest} has several columns named {twice!r}", "Rename them; one would hide the other.")
    image = columns.image
    if image is None:
        image = next((name for name in IMAGE_COLUMNS if name in names), None)
    if image is None and columns.image_required:
        raise UsageError(f"{manifest} has no image column ({', '.join(IMAGE_COLUMNS)})", f"{there} Say --image-column.")
    if image is not None and image not in names:
        raise UsageError(f"{manifest} has no column {image}", there)
    text = columns.text if columns.text in names else None
    if text is None and columns.text_required:
        raise UsageError(f"{manifest} has no column {columns.text}", there)
    carried = tuple(name for name in names if name not in (image, text))
    return Layout(manifest, image, text, carried, columns.image_required)
