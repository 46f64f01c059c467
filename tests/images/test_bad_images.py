"""A bad image is an error of a kind that can be counted, and never anything else."""

import os
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blip2cli.errors import ImageError
from blip2cli.images import decode as images
from blip2cli.images.decode import Reading, decode, read_file

READING = Reading(16)


def encoded(kind: str) -> bytes:
    buffer = BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises that many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    framed = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def kind_of(data: bytes) -> str:
    with pytest.raises(ImageError) as error:
        decode(data, READING)
    assert str(error.value).startswith(error.value.error.kind + ": ") and "\n" not in str(error.value)
    assert len(str(error.value)) < 200
    return error.value.error.kind


def test_a_pointer_of_git_lfs_is_told() -> None:
    with pytest.raises(ImageError, match=r"unsupported: a git-lfs pointer, .* `git lfs pull` fetches it"):
        decode(b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 12345\n", READING)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "TGA"])
def test_half_an_image_is_truncated(kind: str) -> None:
    data = encoded(kind)
    assert kind_of(data[: len(data) // 2]) == "truncated"


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "JPEG2000"])
def test_half_an_image_that_cannot_be_opened_at_all_is_an_error(kind: str) -> None:
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow has no {kind}")
    data = encoded(kind)
    assert kind_of(data[: len(data) // 2]) in ("truncated", "unsupported")


@pytest.mark.parametrize(
    "data",
    [b"hello, world\n" * 20, b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\0" * 4096],
    ids=["text", "svg", "postscript", "zeros"],
)
def test_what_is_no_image_of_a_known_format_is_unsupported(data: bytes) -> None:
    assert kind_of(data) == "unsupported"
    with pytest.raises(ImageError, match="not an image in a known format"):
        decode(data, READING)


def test_nothing_is_empty() -> None:
    assert kind_of(b"") == "empty"


@pytest.mark.parametrize("size", [(60_000, 60_000), (14_000, 14_000), (2**31 - 1, 2**31 - 1)])
def test_a_header_that_claims_too_much_is_too_large(size: tuple[int, int]) -> None:
    assert kind_of(png_that_claims(*size)) == "too-large"


def test_a_header_that_claims_more_than_follows_is_truncated() -> None:
    assert kind_of(png_that_claims(1000, 1000)) == "truncated"


def test_random_damage_gives_pixels_or_an_error_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"):
        for _ in range(30):
            data = bytearray(encoded(kind))
            for at in rng.integers(0, len(data), 8):
                data[at] = rng.integers(0, 256)
            try:
                assert decode(bytes(data), READING).shape == (16, 16, 3)
            except ImageError as error:
                assert error.error.kind in ("truncated", "unsupported", "too-large")


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kind(path: Path) -> str:
        with pytest.raises(ImageError) as error:
            read_file(str(path))
        return error.value.error.kind

    fifo, link, big = tmp_path / "fifo.jpg", tmp_path / "link.jpg", tmp_path / "big.jpg"
    os.mkfifo(fifo)
    link.symlink_to(link)
    big.write_bytes(b"\0" * 20)
    assert kind(tmp_path / "missing.jpg") == "missing"
    assert kind(tmp_path) == kind(fifo) == kind(link) == kind(tmp_path / "nul\0.jpg") == "unreadable"
    assert kind(tmp_path / ("long" * 100)) == kind(big / "below.jpg") == "unreadable"
    assert read_file(str(big)) == b"\0" * 20
    monkeypatch.setattr(images, "MAX_BYTES", 19)
    assert kind(big) == "too-large"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(encoded("JPEG"))
    secret.chmod(0)
    with pytest.raises(ImageError, match="unreadable: Permission denied"):
        read_file(str(secret))
