"""Pixels equal those of transformers' image processor; only large JPEGs are decoded at a reduced scale."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from blip2cli.images.decode import Reading, decode


def smooth(width: int, height: int) -> Image.Image:
    """Low-frequency colours, as photographs have them, with a little noise."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
    noise = rng.integers(-4, 5, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


def by_transformers(data: bytes, side: int) -> np.ndarray:
    processor = BlipImageProcessorPil(
        size={"height": side, "width": side}, do_rescale=False, do_normalize=False, do_convert_rgb=True
    )
    with Image.open(BytesIO(data)) as image:
        pixels = processor(image, return_tensors="np")["pixel_values"][0]
    return np.asarray(pixels).transpose(1, 2, 0).astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
@pytest.mark.parametrize("size", [(64, 64), (100, 37), (37, 100), (200, 127), (5, 9)])
def test_small_images_equal_transformers_bit_for_bit(kind: str, size: tuple[int, int]) -> None:
    data = encoded(smooth(*size), kind)
    assert np.array_equal(decode(data, Reading(64)), by_transformers(data, 64))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_other_modes_equal_transformers_too(mode: str) -> None:
    data = encoded(smooth(90, 70).convert(mode), "TIFF")
    assert np.array_equal(decode(data, Reading(64)), by_transformers(data, 64))


def test_large_jpegs_are_decoded_at_reduced_scale_unless_exact() -> None:
    data = encoded(smooth(900, 700), "JPEG")
    reference = by_transformers(data, 64)
    assert np.array_equal(decode(data, Reading(64, exact=True)), reference)
    reduced = decode(data, Reading(64))
    assert not np.array_equal(reduced, reference)
    assert np.abs(reduced.astype(int) - reference).mean() < 2


@pytest.mark.parametrize(
    ("size", "decoded"),
    [((255, 900), 255), ((256, 900), 128), ((511, 511), 256), ((512, 512), 128), ((5000, 4000), 625)],
)
def test_a_jpeg_keeps_at_least_twice_the_side(
    size: tuple[int, int], decoded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths: list[int] = []
    load = JpegImagePlugin.JpegImageFile.load

    def watched(self: JpegImagePlugin.JpegImageFile) -> object:
        widths.append(self.width)
        return load(self)

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", watched)
    decode(encoded(Image.new("RGB", size), "JPEG"), Reading(64))
    assert widths[0] == decoded


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP"])
def test_other_large_images_are_always_exact(kind: str) -> None:
    data = encoded(smooth(600, 500), kind)
    assert np.array_equal(decode(data, Reading(64)), by_transformers(data, 64))
