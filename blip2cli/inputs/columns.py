"""Which columns of a manifest are the image's and the text's, which are carried, and how
a record becomes a Row."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blip2cli.errors import UsageError
from blip2cli.host import storage
from blip2cli.inputs.cells import NotTexts, text_in
from blip2cli.inputs.encoding import check_encoding
from blip2cli.inputs.image_paths import joined, leaves, root_of
from blip2cli.inputs.names import escaped, existing_spelling, is_unicode
from blip2cli.records import ImageRef, Row, RowError

IMAGE_COLUMNS = ("image", "image_path", "path", "file_name", "filename", "filepath", "file", "img")
"""Names that are tried, in this order, where --image-column is not given."""

URL_COLUMNS = ("url", "image_url", "img_url", "URL")
"""Names of columns that hold URLs, as data sets of the web have them."""

REMOTE_COLUMNS = (*IMAGE_COLUMNS, *URL_COLUMNS)
"""The same with --allow-remote."""

FETCHED = ("http", "https", "s3", "gs", "hf")
"""Schemes of the URLs that a manifest may hold."""

LOCAL_IN_REMOTE = RowError("unsupported", "a local path in a remote manifest")


@dataclass(frozen=True)
class ColumnChoice:
    """How manifests are read: which columns mean something, and what image paths may lead
    to.

    Args:
        image: the column of the images; None to take the first of the usual names.
        text: the column of the texts (a question, say); None where none is read.
        text_required: whether a manifest without the text column is an error.
        text_option: the option that names the text column.
        features: the column of features that were computed earlier, beside which `error` says where this failed; None
            where none is read.
        image_required: whether rows need an image.
        root: the folder that image paths start from; None for the manifest's own folder.
        allow_remote: whether URLs in manifests are fetched.
        allow_private: whether they are fetched from private networks too.
        imagefolder: whether the image column is `file_name`, or the only one that ends with `_file_name`.
        written: a folder in which a metadata file is not read, because the run itself writes it.
        encoding: the encoding of texts without a byte-order mark; None for UTF-8.
    """

    image: str | None = None
    text: str | None = None
    text_required: bool = False
    text_option: str = "--text-column"
    features: str | None = None
    image_required: bool = True
    root: str | None = None
    allow_remote: bool = False
    allow_private: bool = False
    imagefolder: bool = False
    written: str | None = None
    encoding: str | None = None

    def no_text(self, manifest: str, names: Iterable[str]) -> UsageError:
        """The error of a manifest, with these columns, that lacks the text column."""
        given = ", ".join(names) or "no columns"
        return UsageError(
            f"{manifest} has no column {self.text}", f"It has: {given}. Name another with {self.text_option}."
        )

    def root_for(self, manifest: str) -> str:
        """The folder that a manifest's image paths start from."""
        return root_of(manifest) if self.root is None else self.root

    def check(self) -> None:
        """Check that the encoding is known and the root exists. Raises UsageError."""
        check_encoding(self.encoding)
        if self.root is not None and not storage.is_url(self.root) and not os.path.isdir(self.root):
            raise UsageError(
                f"no such folder: --image-root {self.root}",
                "Give an existing folder: image paths of manifests start from it.",
            )


@dataclass(frozen=True)
class ManifestColumns:
    """The columns of one manifest: the image's, the text's (None where it has none), and
    those carried through.

    Image paths start from `root`. Where only texts or features are used, `images_needed`
    is false: the image column names the rows, and no image is read.
    """

    manifest: str
    image: str | None
    text: str | None
    carried: tuple[str, ...]
    root: str
    images_needed: bool = True
    allow_remote: bool = False
    allow_private: bool = False
    features: str | None = None

    def row(self, record: Mapping[str, Any], number: int) -> Row:
        """The Row of one record; `number` counts the manifest's rows from 0 and names an
        image that has no path."""
        columns = {name: record.get(name) for name in self.carried}
        text, error = self._text(record)
        unnamed = f"{escaped(self.manifest)}#{number}"
        if self.image is None:
            return Row(0, unnamed, None, columns, text, error)
        name, image, fault = self._image(record.get(self.image), unnamed)
        if not self.images_needed:
            features = record.get(self.features) if self.features else None
            if self.features and features is None:
                error = RowError.missing(f"column {self.features} is empty", record)
            return Row(0, name, None, columns, text, error, features=features)
        return Row(0, name, image, columns, text, fault or error)

    def _text(self, record: Mapping[str, Any]) -> tuple[str | None, RowError | None]:
        """The text of a record, or what is wrong with it."""
        if not self.text:
            return None, None
        value = record.get(self.text)
        if value is None:
            return None, RowError.missing(f"no text in column {self.text}", record)
        try:
            return escaped(text_in(self.text, value)), None
        except NotTexts as fault:
            return None, fault.error

    def broken(self, number: int, reason: str) -> Row:
        """The error row for a record that cannot be read."""
        return Row(0, f"{escaped(self.manifest)}#{number}", error=RowError("unreadable", reason))

    def _image(self, cell: Any, unnamed: str) -> tuple[str, ImageRef | None, RowError | None]:
        if isinstance(cell, Mapping) and ("bytes" in cell or "path" in cell):  # the Hugging Face struct
            path, data = cell.get("path"), cell.get("bytes")
            if isinstance(data, bytes) and (data or not path):
                return (escaped(path) if isinstance(path, str) and path else unnamed), ImageRef(data=data), None
            cell = path
        if isinstance(cell, bytes):
            return unnamed, ImageRef(data=cell), None
        if isinstance(cell, str) and cell:
            return escaped(cell), *self._place(cell)
        if cell is None or cell == "":
            return unnamed, None, RowError("missing", f"column {self.image} is empty")
        return unnamed, None, RowError("unsupported", f"column {self.image} holds {type(cell).__name__}")

    def _place(self, cell: str) -> tuple[ImageRef | None, RowError | None]:
        """Where the image of a path or URL is, or why it is not looked for."""
        if storage.is_url(cell):
            scheme = cell.partition(":")[0].lower()
            if storage.is_url(self.manifest) and scheme == "file":
                return None, LOCAL_IN_REMOTE
            if scheme not in FETCHED:
                return None, RowError("unsupported", f"{scheme} URLs in a manifest are not fetched")
            if not self.allow_remote:
                return None, RowError("unsupported", "a URL in a manifest; --allow-remote fetches it")
            return ImageRef(url=cell, private=self.allow_private), None
        local = os.path.isabs(cell) or (leaves(cell) and not storage.is_url(self.root))
        if local and storage.is_url(self.manifest):
            return None, LOCAL_IN_REMOTE
        path = joined(self.root, cell)
        return ImageRef(path=path if storage.is_url(path) else existing_spelling(path)), None


def choose_columns(manifest: str, names: list[str], columns: ColumnChoice) -> ManifestColumns:
    """Choose the columns of a manifest.

    Raises UsageError, naming the columns that it has, where one is missing.
    """
    columns_hint = f"It has: {', '.join(names) or 'no columns'}."
    _check_names(manifest, names)
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        raise UsageError(f"{manifest} has several columns named {twice!r}", "Rename them; one would hide the other.")
    image = columns.image or image_column(names, columns)
    if image is None and columns.image_required:
        raise _no_image_column(manifest, names, columns)
    if image is not None and image not in names:
        raise UsageError(f"{manifest} has no column {image}", columns_hint)
    text = columns.text if columns.text in names else None
    if text is None and columns.text_required:
        raise columns.no_text(manifest, names)
    own = (image, text) if columns.features is None else (image, text, columns.features, "error")
    carried = tuple(name for name in names if name not in own)
    return ManifestColumns(
        manifest,
        image,
        text,
        carried,
        columns.root_for(manifest),
        columns.image_required,
        columns.allow_remote,
        columns.allow_private,
        columns.features,
    )


def _check_names(manifest: str, names: Sequence[str]) -> None:
    """Check that the columns' names are Unicode, which every output holds.

    Raises UsageError.
    """
    for name in names:
        if not is_unicode(name):
            raise UsageError(f"{manifest} has a column whose name is not Unicode: {name!r}", "Rename it.")


def image_column(names: Sequence[str], columns: ColumnChoice) -> str | None:
    """The column of images by its name, for when the user names none; None where no name
    is known."""
    if not columns.imagefolder:
        known = REMOTE_COLUMNS if columns.allow_remote else IMAGE_COLUMNS
        return next((name for name in known if name in names), None)
    if "file_name" in names:
        return "file_name"
    others = [name for name in names if name.endswith("_file_name")]
    return others[0] if len(others) == 1 else None


def _no_image_column(manifest: str, names: Sequence[str], columns: ColumnChoice) -> UsageError:
    columns_hint = f"It has: {', '.join(names) or 'no columns'}."
    if columns.imagefolder:
        images = os.path.join(os.path.dirname(manifest), "**", "*.jpg")
        return UsageError(
            f"{manifest} has no column file_name",
            f"{columns_hint} Name it with --image-column, or give the images alone: {images!r}.",
        )
    urls = not columns.allow_remote and not set(URL_COLUMNS).isdisjoint(names)
    hint = "--allow-remote to fetch the URLs" if urls else "--image-column"
    return UsageError(f"{manifest} has no image column ({', '.join(IMAGE_COLUMNS)})", f"{columns_hint} Give {hint}.")
