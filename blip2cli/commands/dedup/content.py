"""What image files hold: which of them are the same byte for byte, and how large they are."""

from __future__ import annotations

import hashlib
import os
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from blip2cli.commands.results.pictures import Pictures
from blip2cli.errors import ImageError
from blip2cli.host import storage
from blip2cli.host.terminal import Progress
from blip2cli.images.decode import bytes_of, size_of
from blip2cli.records import ImageRef


@dataclass
class Content:
    """What is known of the images of rows.

    Args:
        pixels: of each row's image, 0 where it is not known.
        sizes: its bytes, 0 where they are not known.
        digests: of the images that may have the same content as others, by row.
        missing: images that were not found, or cannot be read.
    """

    pixels: np.ndarray
    sizes: np.ndarray
    digests: dict[int, bytes] = field(default_factory=dict)
    missing: int = 0

    @staticmethod
    def unknown(rows: int) -> Content:
        """That of images that are not looked at."""
        return Content(np.zeros(rows), np.zeros(rows))

    def same(self, order: np.ndarray) -> np.ndarray:
        """For each row the number of the row with the same content that comes first in an order of rows."""
        same = np.arange(len(self.sizes))
        first: dict[bytes, int] = {}
        for row in order.tolist():
            if row in self.digests:
                same[row] = first.setdefault(self.digests[row], row)
        return same


def read_content(pictures: Pictures, rows: np.ndarray, with_pixels: bool, quiet: bool) -> Content:
    """The content of rows' images. Files are read only if others have their size, or `with_pixels`."""
    content = Content.unknown(pictures.features.rows)
    unread: dict[int, list[tuple[int, ImageRef]]] = {}
    with closing(Progress(quiet)) as progress:
        progress.begin(len(rows), 0)
        for row in pictures.of_rows(rows.tolist()):
            progress.advance(1, 0)
            if row.error is not None or row.image is None:
                content.missing += 1
            elif not with_pixels and (size := _size_of_file(row.image)) is not None:
                content.sizes[row.index] = size
                unread.setdefault(size, []).append((row.index, row.image))
            else:
                _read(content, row.index, row.image, with_pixels)
        for images in unread.values():
            if len(images) > 1:
                for index, image in images:
                    _read(content, index, image, with_pixels=False)
    return content


def _size_of_file(image: ImageRef) -> int | None:
    """The size of an image that is a file of its own on this machine; None for others, and where there is none."""
    if image.path is None or image.size is not None or image.offset or storage.is_url(image.path):
        return None
    try:
        return os.stat(image.path).st_size
    except (OSError, ValueError):
        return None


def _read(content: Content, row: int, image: ImageRef, with_pixels: bool) -> None:
    """Note what an image holds; what cannot be read is counted as missing."""
    try:
        data = bytes_of(image)
        content.digests[row] = hashlib.blake2b(data, digest_size=16).digest()
        content.sizes[row] = len(data)
        if with_pixels:
            width, height = size_of(data)
            content.pixels[row] = width * height
    except ImageError:
        content.missing += 1
