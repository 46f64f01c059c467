"""Images handed over in Python: paths, bytes, or open Pillow images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, Any

from blip2cli.inputs.folder import image_row
from blip2cli.inputs.source import Source
from blip2cli.records import ImageRef, Row, RowError

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Objects(Source):
    """Any iterable of images, taken as they are needed. What has no path is named #0, #1 and so on."""

    images: Iterable[Any]

    def rows(self, start: int = 0) -> Iterator[Row]:
        from PIL import Image

        for number, image in enumerate(islice(self.images, start, None), start):
            if isinstance(image, (str, os.PathLike)):
                yield image_row(os.fspath(image))
            elif isinstance(image, (bytes, bytearray)):
                yield Row(0, f"#{number}", ImageRef(data=bytes(image)))
            elif isinstance(image, Image.Image):
                yield Row(0, f"#{number}", ImageRef(data=_encoded(image)))
            else:
                fault = f"{type(image).__name__} is not a path, bytes or a Pillow image"
                yield Row(0, f"#{number}", error=RowError("unsupported", fault))


def _encoded(image: Image.Image) -> bytes:
    """The image in a lossless format that knows all of Pillow's modes, so that workers read it like any other."""
    from PIL import ImageOps

    buffer = BytesIO()
    ImageOps.exif_transpose(image).save(buffer, "TIFF")
    return buffer.getvalue()
