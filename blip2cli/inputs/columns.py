"""Which columns of a manifest the user means."""

from __future__ import annotations

import os
from dataclasses import dataclass

from blip2cli.errors import UsageError
from blip2cli.host import storage
from blip2cli.inputs.encoding import check_encoding


@dataclass(frozen=True)
class ColumnChoice:
    """How manifests are read: which columns mean something, and what image paths may lead to.

    Args:
        image: the column of the images; None to take the first of the usual names.
        text: the column of the texts (a question, say); None where none is read.
        text_required: whether a manifest without the text column is an error.
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
    image_required: bool = True
    root: str | None = None
    allow_remote: bool = False
    allow_private: bool = False
    imagefolder: bool = False
    written: str | None = None
    encoding: str | None = None

    def check(self) -> None:
        """See that the encoding is known and the root exists. Raises UsageError."""
        check_encoding(self.encoding)
        if self.root is not None and not storage.is_url(self.root) and not os.path.isdir(self.root):
            raise UsageError(
                f"no such folder: --image-root {self.root}",
                "Give an existing folder: image paths of manifests start from it.",
            )
