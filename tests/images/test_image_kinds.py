"""Images of every kind become upright RGB pixels at the checkpoint's size."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin, features

from blip2cli.errors import ImageError
from blip2cli.images import decode as decoding
from blip2cli.images.decode import Reading, decode, known_formats, suffix_by_content
from blip2cli.inputs.image_formats import IMAGE_FORMATS, ImageFormat, is_image

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


@pytest.mark.parametrize("kind", ["QOI", "PPM", "DIB", "PCX"])
def test_formats_that_few_programs_write(kind: str) -> None:
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {kind}")
    assert_is_the_picture(decode(encoded(picture(), kind), READING), 0)


def test_pictures_of_phones_that_hold_a_second_one_are_jpegs() -> None:
    data = encoded(picture(), "MPO", quality=95, save_all=True, append_images=[Image.new("RGB", (40, 24))])
    assert_is_the_picture(decode(data, READING), 12)
    assert suffix_by_content(data) == ".jpg"


@pytest.mark.parametrize("kind", [kind for kind in IMAGE_FORMATS if kind != "MPO"])
def test_what_is_written_has_a_suffix_that_is_read(kind: str) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif")
    elif kind not in Image.SAVE and not Image.init() and kind not in Image.SAVE:
        pytest.skip(f"this Pillow has no {kind}")
    known_formats()
    suffix = suffix_by_content(encoded(picture(), kind))
    assert suffix == IMAGE_FORMATS[kind].suffixes[0] and is_image(f"a{suffix.upper()}")


def test_every_suffix_that_pillow_knows_for_these_formats_is_read_or_left_out_for_a_reason() -> None:
    Image.init()
    ambiguous = {".icb", ".vda", ".vst"}  # of TGA: other programs' files have them too
    known = {suffix for suffix, kind in Image.EXTENSION.items() if kind in IMAGE_FORMATS}
    assert known - ambiguous <= {suffix for kind in IMAGE_FORMATS.values() for suffix in kind.suffixes}


def heif(image: Image.Image, orientation: int = 1) -> bytes:
    pytest.importorskip("pillow_heif")
    known_formats()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encoded(image, "HEIF", quality=95, exif=exif.tobytes())


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_heif_is_turned_once(orientation: int) -> None:
    how_stored = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    stored = picture().transpose(how_stored[orientation]) if orientation > 1 else picture()
    assert_is_the_picture(decode(heif(stored, orientation), READING), 16)


def test_heif_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = heif(picture())
    known = tuple(name for name in known_formats() if name != "HEIF")
    monkeypatch.setattr(decoding, "known_formats", lambda: known)
    monkeypatch.setattr(ImageFormat, "installed", property(lambda self: not self.package))
    with pytest.raises(ImageError, match=r"^unsupported: HEIF needs another package: pip install 'blip2cli\[heif\]'"):
        decode(data, READING)


def png_with(**metadata: Any) -> bytes:
    return encoded(picture(), "PNG", **metadata)


def large_text(size: int, zipped: bool, count: int = 1) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for number in range(count):
        info.add_itxt(f"text {number}", "a" * size, zip=zipped)
    return info


@pytest.mark.parametrize(
    "metadata",
    [
        {"pnginfo": large_text(1_500_000, zipped=True)},
        {"pnginfo": large_text(1_000_000, zipped=False, count=70)},
        {"icc_profile": bytes(1_200_000)},
    ],
    ids=["a compressed text", "many texts", "a colour profile"],
)
def test_large_metadata_of_a_png_does_no_harm(metadata: dict) -> None:
    assert_is_the_picture(decode(png_with(**metadata), READING), 0)
    assert suffix_by_content(png_with(**metadata)) == ".png"


def test_large_metadata_does_no_harm_with_the_words_of_a_pillow_before_11(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(compressed: bytes) -> bytes:
        raise ValueError("Decompressed Data Too Large")

    monkeypatch.setattr(PngImagePlugin, "_safe_zlib_decompress", refuse)
    data = png_with(icc_profile=bytes(100))
    assert_is_the_picture(decode(data, READING), 0)
    assert suffix_by_content(data) == ".png"


def test_large_metadata_behind_the_pixels_does_no_harm_and_exif_still_counts() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    stored = picture().transpose(Image.Transpose.ROTATE_90)
    data = encoded(stored, "PNG", exif=exif, pnginfo=large_text(1_500_000, zipped=True))
    at = data.index(b"iTXt") - 4
    chunk = data[at : at + 12 + int.from_bytes(data[at : at + 4], "big")]
    end = data.index(b"IEND") - 4
    moved = data[:at] + data[at + len(chunk) : end] + chunk + data[end:]
    assert_is_the_picture(decode(moved, READING), 0)
