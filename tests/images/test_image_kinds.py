"""Images of every kind become upright RGB pixels at the checkpoint's size."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, features

from blip2cli.images.decode import Reading, decode

SIDE = 16
READING = Reading(SIDE)
QUARTERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], dtype=np.uint8)
CORNERS = [(0, 0), (0, -1), (-1, 0), (-1, -1)]


def picture(width: int = 40, height: int = 24) -> Image.Image:
    """Red and green above blue and white."""
    return Image.fromarray(QUARTERS).resize((width, height), Image.Resampling.NEAREST)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def assert_is_the_picture(pixels: np.ndarray, within: int = 8) -> None:
    assert pixels.shape == (SIDE, SIDE, 3) and pixels.dtype == np.uint8
    for (row, column), wanted in zip(CORNERS, QUARTERS.reshape(4, 3), strict=True):
        assert np.abs(pixels[row, column].astype(int) - wanted).max() <= within


@pytest.mark.parametrize(
    ("kind", "options", "within"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("GIF", {}, 0),
        ("PPM", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"compression": "jpeg", "quality": 95}, 12),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 95}, 12),
        ("JPEG", {"quality": 95, "progressive": True}, 12),
        ("AVIF", {"quality": 95}, 12),
        ("JPEG2000", {}, 2),
        ("TGA", {}, 0),
        ("ICO", {"sizes": [(40, 24)]}, 0),
    ],
)
def test_formats(kind: str, options: dict, within: int) -> None:
    if kind in ("AVIF", "WEBP", "JPEG2000") and not features.check(kind.lower().replace("jpeg2000", "jpg_2000")):
        pytest.skip(f"this Pillow has no {kind}")
    assert_is_the_picture(decode(encoded(picture(), kind, **options), READING), within)


def test_palette_images() -> None:
    assert_is_the_picture(decode(encoded(picture().quantize(4), "PNG"), READING), 0)
    see_through = picture().quantize(4)
    assert_is_the_picture(decode(encoded(see_through, "PNG", transparency=0), READING), 0)


def test_cmyk_jpegs() -> None:
    assert_is_the_picture(decode(encoded(picture().convert("CMYK"), "JPEG", quality=95), READING), 16)


def test_alpha_is_dropped() -> None:
    image = picture()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    assert_is_the_picture(decode(encoded(image, "PNG"), READING), 0)


def test_greyscale_fills_three_channels() -> None:
    pixels = decode(encoded(picture().convert("L"), "PNG"), READING)
    assert (pixels == pixels[:, :, :1]).all() and len(np.unique(pixels[:, :, 0])) >= 4
    assert (decode(encoded(picture().convert("1"), "PNG"), READING)[-1, -1] == 255).all()
    assert (decode(encoded(picture().convert("LA"), "PNG"), READING) == pixels).all()


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    deep = Image.fromarray(np.array([[0, 0x4000], [0x8000, 0xFFFF]], dtype=np.uint16)).resize(
        (40, 40), Image.Resampling.NEAREST
    )
    for kind in ("PNG", "TIFF"):
        pixels = decode(encoded(deep, kind), READING)
        assert [int(pixels[at][0]) for at in CORNERS] == [0, 0x40, 0x80, 0xFF]


def test_float_grey_between_0_and_1_is_scaled() -> None:
    grey = Image.fromarray(np.array([[0.0, 0.5], [0.5, 1.0]], dtype=np.float32)).resize(
        (40, 40), Image.Resampling.NEAREST
    )
    pixels = decode(encoded(grey, "TIFF"), READING)
    assert [int(pixels[at][0]) for at in CORNERS] == [0, 127, 127, 255]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_or_many_pages_the_first_is_taken(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    frames = [Image.new("RGB", (40, 24), colour) for colour in ("black", "gray")]
    data = encoded(picture(), kind, save_all=True, append_images=frames, **options)
    with Image.open(BytesIO(data)) as image:
        assert image.n_frames == 3
    assert_is_the_picture(decode(data, READING), 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_the_thinnest_images(size: tuple[int, int]) -> None:
    assert (decode(encoded(Image.new("RGB", size, (9, 8, 7)), "PNG"), READING) == (9, 8, 7)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    how_stored = {  # what turns an upright picture into one stored with that orientation
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = picture().transpose(how_stored[orientation]) if orientation > 1 else picture()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"quality": 95} if kind == "JPEG" else {}
    assert_is_the_picture(decode(encoded(stored, kind, exif=exif, **options), READING), 12)


def test_exif_orientation_is_applied_to_jpegs_decoded_at_reduced_scale() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    stored = picture(400, 240).transpose(Image.Transpose.ROTATE_90)
    assert_is_the_picture(decode(encoded(stored, "JPEG", quality=95, exif=exif), READING), 12)


def test_a_malformed_exif_block_does_no_harm() -> None:
    data = encoded(picture(), "JPEG", quality=95, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f")
    assert_is_the_picture(decode(data, READING), 12)
