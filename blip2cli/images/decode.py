"""Decodes bytes to RGB pixels at the checkpoint's size, safely. Nothing here knows about batches or models.

Matches transformers' `BlipImageProcessorPil` (convert to RGB, squash to the side, bicubic) with three additions: EXIF
orientation is applied, 16-bit and float images are scaled to 8 bits rather than clipped, and large JPEGs are decoded
at reduced scale unless `exact` is asked for.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from blip2cli.errors import Blip2Error, ImageError, one_line, reason
from blip2cli.host import retries, storage
from blip2cli.host.containment import OUTSIDE, is_below, open_below
from blip2cli.images.fetch import fetch
from blip2cli.inputs.image_formats import IMAGE_FORMATS, install_hint
from blip2cli.records import Fitting, ImageRef, RowError

T = TypeVar("T")

Size = tuple[int, int]
"""Width and height in pixels."""

MAX_PIXELS = 178_956_970
"""Largest width × height that is decoded: Pillow's own bound for a decompression bomb (half a gigabyte as RGB)."""

MAX_BYTES = 1 << 30
"""Largest file that is read."""

THUMBNAIL_QUALITY = 65

PIXELS, REPEATED, FAILED = b"+", b"=", b"!"
"""What DecodeImages gives begins with: digest and pixels; the digest of an earlier image; or an error's text."""

DIGEST_BYTES = 16

BLOCK = 1 << 20
"""Pixels of deep grey that are scaled at a time."""

PNG = b"\x89PNG\r\n\x1a\n"
"""What a PNG file begins with."""

PNG_METADATA = (b"iTXt", b"zTXt", b"tEXt", b"iCCP")
"""Chunks of a PNG file that do not change its pixels here: texts and the colour profile."""

METADATA_REFUSED = ("max_text", "decompressed data too large")
"""What Pillow's errors about too large texts and colour profiles contain, in lower case.

The second is all that Pillow before version 11 says.
"""

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""What follows `ftyp` in a HEIF file."""


SQUASH = Fitting()
"""What BLIP-2's own processors do: squash to the square, bicubic, in RGB."""


@dataclass(frozen=True)
class Reading:
    """How images are read: the side in pixels of the square that they become, whether exactly, and in which way.

    With `exact` false, where images are just squashed, a JPEG is decoded at the smallest of the scales 1/2, 1/4 and 1/8
    whose sides are still at least twice `side` (Pillow's draft mode).
    """

    side: int
    exact: bool = False
    fitting: Fitting = SQUASH


def bytes_of(image: ImageRef) -> bytes:
    """The encoded image. Raises ImageError, and no other exception: any failure is an error of one row."""
    try:
        return _read_anywhere(image)
    except ImageError:
        raise
    except Blip2Error as error:
        raise ImageError("unreadable", one_line(f"{error.message}. {error.hint}", 300)) from None
    except Exception as error:  # file systems and packages for URLs have their own exceptions
        raise ImageError("unreadable", reason(error, named=True)) from None


def _read_anywhere(image: ImageRef) -> bytes:
    if image.data is not None:
        return image.data
    if image.url is not None:
        return fetch(image.url, image.private)
    path = image.path or ""
    if image.within is not None and storage.is_url(path) and not is_below(image.within, path):
        raise ImageError("unreadable", OUTSIDE)
    if path.lower().startswith(("http://", "https://")) and image.size is None:  # typed by the user
        return fetch(path, allow_private=True)
    return read_file(path, image.offset, image.size, image.within)


def read_file(path: str, offset: int = 0, size: int | None = None, within: str | None = None) -> bytes:
    """The bytes of a regular file or URL, or `size` of them from `offset` on; of a file only inside the folder
    `within`.

    Raises ImageError for one that is missing, too large, or not a regular file.
    """
    try:
        return retries.retried(lambda: _read(path, offset, size, within))
    except FileNotFoundError:
        raise ImageError("missing", "no such file") from None
    except (OSError, ValueError) as error:
        code = error.errno if isinstance(error, OSError) else None
        if code == errno.EFBIG:
            raise ImageError("too-large", reason(error)) from None
        tried = code in retries.TRANSIENT
        times = f", tried {len(retries.WAITS) + 1} times" if tried else ""
        raise ImageError("unreadable", f"{reason(error)}{times}") from None


def _read(path: str, offset: int, size: int | None, within: str | None) -> bytes:
    if within is not None and not storage.is_url(path):
        with open_below(within, path) as file:
            return storage.read_from(file, MAX_BYTES, offset, size)
    if not storage.is_url(path) and not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return storage.read(path, MAX_BYTES, offset, size)


def decode(data: bytes, reading: Reading) -> np.ndarray:
    """Decode an encoded image to uint8 RGB [side, side, 3]. Raises ImageError."""
    side = reading.side
    scaled = not reading.exact and reading.fitting == SQUASH
    enough = (lambda size: (2 * side, 2 * side)) if scaled else None
    return _decoded(data, enough, lambda image: _pixels(image, reading))


@dataclass(frozen=True)
class DecodeImages:
    """What processes do with a list of images: see PIXELS. The same bytes twice in a list are decoded once."""

    reading: Reading

    def __call__(self, images: Iterator[ImageRef | None]) -> Iterator[bytes]:
        results_by_digest: dict[bytes, bytes] = {}
        for image in images:
            try:
                yield b"" if image is None else self.decoded(image, results_by_digest)
            except ImageError as error:
                yield failure(error.error)
            except Exception as error:
                yield failure(RowError("unreadable", type(error).__name__))

    def decoded(self, image: ImageRef, results_by_digest: dict[bytes, bytes]) -> bytes:
        """One image; its result is stored, for when it comes again. Raises ImageError."""
        data = bytes_of(image)
        digest = hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
        if digest in results_by_digest:
            return results_by_digest[digest]
        try:
            pixels = np.ascontiguousarray(decode(data, self.reading))
        except ImageError as error:
            results_by_digest[digest] = failure(error.error)
            raise
        results_by_digest[digest] = REPEATED + digest
        return b"".join((PIXELS, digest, pixels.data))


def failure(error: RowError) -> bytes:
    """An error as processes give it instead of an image."""
    return FAILED + str(error).encode("utf-8", "backslashreplace")


def failure_in(result: bytes) -> RowError | None:
    """The error that a process gave, if it gave one."""
    if result[:1] != FAILED:
        return None
    return RowError.parsed(result[1:].decode("utf-8", "backslashreplace"))


def thumbnail(data: bytes, side: int) -> bytes:
    """An encoded image as a small WebP: upright, in its proportions, its longer side at most `side`, without metadata.

    Raises ImageError.
    """

    def enough(size: Size) -> Size:
        width, height = (2 * side * pixels // max(size) for pixels in size)
        return max(width, 1), max(height, 1)

    return _decoded(data, enough, lambda image: _small(image, side))


def _decoded(data: bytes, enough: Callable[[Size], Size] | None, then: Callable[[Image.Image], T]) -> T:
    """The result of `then` for a decoded image. Raises ImageError.

    Args:
        data: the encoded image.
        enough: from the image's size to one at which a JPEG may be decoded instead, or a larger one; None for its own.
        then: makes something of the image.
    """
    if not data:
        raise ImageError("empty", "0 bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about odd metadata; real faults raise
        image = _open(data)
        try:
            if enough is not None:
                image.draft(None, enough(image.size))
            image.load()
            return then(image)
        except ImageError:
            raise
        except MemoryError:
            raise ImageError("too-large", f"{image.width} x {image.height} pixels do not fit in memory") from None
        except Exception as error:  # decoders raise all sorts on corrupt data, SyntaxError and struct.error among them
            if _is_about_metadata(error):
                return _decoded(_without_metadata(data), enough, then)
            raise ImageError("truncated", reason(error)) from None


def suffix_by_content(data: bytes) -> str:
    """The suffix for an encoded image: .jpg, .png and so on. Raises ImageError."""
    if not data:
        raise ImageError("empty", "0 bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return IMAGE_FORMATS[str(_open(data).format)].suffixes[0]


def size_of(data: bytes) -> Size:
    """Width and height of an encoded image in pixels, from its header. Raises ImageError."""
    if not data:
        raise ImageError("empty", "0 bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _open(data).size


def _open(data: bytes) -> ImageFile.ImageFile:
    try:
        image = Image.open(BytesIO(data), formats=known_formats())
    except UnidentifiedImageError:
        raise ImageError("unsupported", _unknown(data)) from None
    except Image.DecompressionBombError:
        raise ImageError("too-large", "decompression bomb") from None
    except Exception as error:
        if _is_about_metadata(error):
            return _open(_without_metadata(data))
        raise ImageError("unsupported", reason(error)) from None
    if image.width * image.height > MAX_PIXELS:
        raise ImageError("too-large", f"{image.width} x {image.height} pixels")
    return image


@cache
def known_formats() -> tuple[str, ...]:
    """Those of IMAGE_FORMATS that can be read here."""
    Image.init()
    if IMAGE_FORMATS["HEIF"].installed:
        from pillow_heif import register_heif_opener

        register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    return tuple(name for name in IMAGE_FORMATS if name in Image.OPEN)


def _unknown(data: bytes) -> str:
    """Why bytes are not opened: a format that needs an extra, or an unknown one."""
    hint = install_hint(IMAGE_FORMATS["HEIF"].suffixes[0])
    if hint and data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
        return f"HEIF needs another package: {hint}"
    if data.startswith(storage.LFS_POINTER):
        return "a git-lfs pointer, not the file itself; `git lfs pull` fetches it"
    return "not an image in a known format"


def _is_about_metadata(error: Exception) -> bool:
    """Whether Pillow refuses a PNG file for the size of its texts or its colour profile; the pixels may be sound."""
    message = str(error).lower()
    return isinstance(error, ValueError) and any(words in message for words in METADATA_REFUSED)


def _without_metadata(png: bytes) -> bytes:
    """A PNG file without its texts and its colour profile."""
    kept_chunks, at = [PNG], len(PNG)
    while at < len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")  # length, name, data, checksum
        if png[at + 4 : at + 8] not in PNG_METADATA:
            kept_chunks.append(png[at:end])
        at = end
    return b"".join(kept_chunks)


def _pixels(image: Image.Image, reading: Reading) -> np.ndarray:
    upright, fitting = _upright(image), reading.fitting
    rgb = _eight_bits(upright).convert("RGB") if fitting.convert_rgb else _unconverted(upright)
    if fitting.resize:
        rgb = rgb.resize(_new_size(rgb.size, reading), Image.Resampling(fitting.resample))
    return np.asarray(_middle(rgb, reading.side) if fitting.crop else rgb)


def _unconverted(image: Image.Image) -> Image.Image:
    """An image's three channels, whatever their meaning. Raises ImageError if there are not three."""
    if len(image.getbands()) != 3:
        raise ImageError("unsupported", f"mode {image.mode}, and the checkpoint's do_convert_rgb is false")
    return Image.frombytes("RGB", image.size, image.tobytes())


def _new_size(size: Size, reading: Reading) -> Size:
    """What an image is resized to: the square, or as the checkpoint's processor says. Raises ImageError."""
    fitting = reading.fitting
    if fitting.size is not None:
        height, width = fitting.size
        return width, height
    if fitting.shortest_edge is None:
        return reading.side, reading.side
    width, height = _in_proportion(size, fitting.shortest_edge, fitting.longest_edge)
    if width * height > MAX_PIXELS:
        raise ImageError("too-large", f"{width} x {height} pixels, with its shorter side of {fitting.shortest_edge}")
    return width, height


def _in_proportion(size: Size, shortest: int, longest: int | None) -> Size:
    """The size with its shorter side of `shortest`, or its longer one of `longest` if it were longer.

    Rounds as transformers' `get_size_with_aspect_ratio` and `get_resize_output_image_size` do.
    """
    short, long = sorted(size)
    edge = float(shortest)
    if longest is not None and long / short * shortest > longest:
        edge = longest * short / long
    new_short = round(edge)
    if longest is not None and new_short == short:
        return size
    new_long = int(edge * long / short)
    return (new_short, new_long) if size[0] <= size[1] else (new_long, new_short)


def _middle(image: Image.Image, side: int) -> Image.Image:
    """The square in the middle of an image, with black where it is larger than the image."""
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _small(image: Image.Image, side: int) -> bytes:
    rgb = _eight_bits(_upright(image)).convert("RGB")
    rgb.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    rgb.info = {}  # whose colour profile would be written too
    buffer = BytesIO()
    rgb.save(buffer, "WEBP", quality=THUMBNAIL_QUALITY)
    return buffer.getvalue()


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except Exception:  # a malformed EXIF block says nothing about the pixels
        return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey to its high byte, 32-bit and float grey scaled to their range; everything else as it is."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        return Image.fromarray(_scaled(np.asarray(image)))
    return image


def _scaled(values: np.ndarray) -> np.ndarray:
    """Grey of any range as uint8, a block at a time: all of it as float64 would take gigabytes."""
    top = np.fmax.reduce(values, axis=None, initial=0)
    if 0 < top <= 1.0 and values.dtype.kind == "f":
        scale = 255.0
    elif top > 255:
        scale = 255.0 / 65535.0
    else:
        scale = 1.0
    flat, grey = values.reshape(-1), np.empty(values.size, np.uint8)
    for at in range(0, flat.size, BLOCK):
        block = np.nan_to_num(flat[at : at + BLOCK].astype(np.float64))
        grey[at : at + BLOCK] = np.clip(block * scale, 0, 255)
    return grey.reshape(values.shape)
