"""Small pictures of images of all kinds."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from blip2cli.errors import ImageError
from blip2cli.images.decode import thumbnail


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data))


@pytest.mark.parametrize(
    ("size", "small"), [((1000, 400), (100, 40)), ((400, 1000), (40, 100)), ((30, 20), (30, 20)), ((5000, 2), (100, 1))]
)
def test_the_longer_side_is_bounded_and_nothing_is_enlarged(size: tuple[int, int], small: tuple[int, int]) -> None:
    for form in ("PNG", "JPEG"):
        assert opened(thumbnail(encoded(Image.new("RGB", size), form), 100)).size == small


def test_it_is_upright_and_carries_no_metadata() -> None:
    left_red = Image.new("RGB", (200, 100))
    left_red.paste((255, 0, 0), (0, 0, 100, 100))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    exif[0x010E] = "where I live"
    data = encoded(left_red, "JPEG", exif=exif, icc_profile=b"profile" * 1000)
    small = thumbnail(data, 100)
    image = opened(small)
    assert image.size == (50, 100)
    assert np.asarray(image.convert("RGB"))[10, 25, 0] > 200, "red is above"
    assert b"where I live" not in small and b"profile" not in small and not image.getexif()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_every_mode_has_one(mode: str) -> None:
    form = "TIFF" if mode in ("CMYK", "F") else "PNG"
    assert opened(thumbnail(encoded(Image.new(mode, (60, 40)), form), 30)).size == (30, 20)


@pytest.mark.parametrize("data", [b"", b"junk", encoded(Image.new("RGB", (60, 40), "red"))[:60]])
def test_what_is_no_image_has_none(data: bytes) -> None:
    with pytest.raises(ImageError):
        thumbnail(data, 30)
