"""Images handed over in Python: paths, bytes, open files, Pillow images, arrays and tensors."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, Any

from blip2cli.errors import ImageError, UsageError, reason
from blip2cli.inputs.folder import image_row
from blip2cli.inputs.source import Source
from blip2cli.records import ImageRef, Row, RowError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

CHANNELS = (1, 3, 4)
"""Numbers of channels of an image in an array."""

KINDS = "Give paths, bytes, open files, Pillow images, arrays, a DataFrame or a data set."


class NotAnImage(UsageError):
    """A value is not an image of a kind that is read."""


@dataclass(frozen=True)
class Objects(Source):
    """Any iterable of images, taken as they are needed. What has no path is named #0, #1 and so on.

    Raises UsageError when it comes to a value that is not an image; None is a row without an image.
    """

    images: Iterable[Any]

    def rows(self, start: int = 0) -> Iterator[Row]:
        for number, image in enumerate(islice(self.images, start, None), start):
            try:
                content = path_or_bytes(image)
            except NotAnImage as error:
                raise NotAnImage(f"image {number} {error.message}", error.hint) from None
            except ImageError as error:
                yield Row(0, f"#{number}", error=error.error)
                continue
            if isinstance(content, str):
                yield image_row(content)
            elif content is not None:
                yield Row(0, f"#{number}", ImageRef(data=content))
            else:
                yield Row(0, f"#{number}", error=RowError("missing", "None is not an image"))


def is_one_image(value: Any) -> bool:
    """Whether a value is an image, and not a collection of images."""
    if _is_array(value):
        return value.ndim not in (1, 4)  # of 0 or 5 dimensions it is not an image, which is said when it is read
    return isinstance(value, (bytes, bytearray, memoryview, io.IOBase)) or _is_pillow(value) or _is_struct(value)


def path_or_bytes(value: Any) -> str | bytes | None:
    """An image as its path, or as the bytes of a file; None for None. Raises NotAnImage, ImageError for a bad one."""
    if value is None:
        return None
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, io.IOBase):
        return _read(value)
    if _is_pillow(value):
        return _encoded(value)
    if _is_array(value):
        return _encoded(_picture(_array_of(value)))
    if _is_arrow_scalar(value):
        return path_or_bytes(value.as_py())
    if _is_struct(value):
        data = value.get("bytes")
        return data if isinstance(data, bytes) and data else value.get("path")
    raise NotAnImage(f"is of type {type(value).__name__}, which is not an image", KINDS)


def _is_pillow(value: Any) -> bool:
    from PIL import Image

    return isinstance(value, Image.Image)


def _is_array(value: Any) -> bool:
    """Whether a value is an array of NumPy or a tensor of PyTorch."""
    import numpy as np

    return isinstance(value, np.ndarray) or _is_tensor(value)


def _is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of PyTorch, which is not imported for this."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_arrow_scalar(value: Any) -> bool:
    """Whether a value is one of an Arrow array; Arrow is not imported for this."""
    arrow = sys.modules.get("pyarrow")
    return arrow is not None and isinstance(value, arrow.Scalar)


def _is_struct(value: Any) -> bool:
    """Whether a value is an image as Hugging Face data sets hold it."""
    return isinstance(value, Mapping) and {"bytes", "path"} == set(value)


def _read(file: Any) -> bytes:
    """The rest of a binary file that is open."""
    try:
        data = file.read()
    except (OSError, ValueError) as error:  # it may be closed
        raise ImageError("unreadable", reason(error)) from None
    if not isinstance(data, bytes):
        raise NotAnImage("is a file opened as text", "Open it in binary mode: open(path, 'rb').")
    return data


def _array_of(value: Any) -> np.ndarray:
    """An array with channels last."""
    import numpy as np

    array = _of_tensor(value) if _is_tensor(value) else np.asarray(value)
    if array.ndim == 3 and array.shape[0] in CHANNELS and array.shape[-1] not in CHANNELS:
        array = np.moveaxis(array, 0, -1)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in CHANNELS) or 0 in array.shape:
        shape = " x ".join(map(str, array.shape)) or "0 dimensions"
        raise NotAnImage(f"is an array of {shape}, which is not an image", "Give height x width x 1, 3 or 4.")
    return array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array


def _of_tensor(tensor: Any) -> np.ndarray:
    """The values of a tensor. Raises NotAnImage for one whose values cannot be read, such as one on meta."""
    try:
        dense = tensor.detach().to_dense().cpu()
        array: np.ndarray = (dense.float() if dense.is_floating_point() else dense).numpy()
    except (NotImplementedError, RuntimeError, TypeError) as error:
        raise NotAnImage(f"is a tensor that cannot be read: {reason(error)}", "Give uint8 on the CPU.") from None
    return array


def _picture(array: np.ndarray) -> Image.Image:
    """An array as a Pillow image: numbers from 0 to 255, or fractions from 0 to 1."""
    import numpy as np
    from PIL import Image

    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise NotAnImage(
                "is an array of fractions that are not from 0 to 1", "Undo its normalization, or give uint8."
            )
        array = np.rint(array * 255)
    elif array.dtype == bool:
        array = array * np.uint8(255)
    elif not np.issubdtype(array.dtype, np.integer) or array.min() < 0 or array.max() > 255:
        raise NotAnImage(f"is an array of {array.dtype} with values that are not from 0 to 255", "Give uint8.")
    return Image.fromarray(np.ascontiguousarray(array.astype(np.uint8)))


def _encoded(image: Image.Image) -> bytes:
    """The image in a lossless format that knows all of Pillow's modes, so that workers read it like any other."""
    from PIL import ImageOps

    buffer = BytesIO()
    try:
        image.load()  # which reads the rest of its file
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageError("unreadable", reason(error)) from None
    ImageOps.exif_transpose(image).save(buffer, "TIFF")
    return buffer.getvalue()
