"""What an image may take of memory, whatever it claims or is made of; and which programs it may start: none."""

import struct
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blip2cli.errors import ImageError
from blip2cli.images.decode import Reading, decode
from tests.conftest import Typed
from tests.hostile.test_mutated_images import png

SIDE = 3000
PROGRAM = """
import sys
from pathlib import Path
from PIL import Image
from blip2cli.errors import ImageError
from blip2cli.images.decode import Reading, decode

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10

data = Path(sys.argv[1]).read_bytes()
Image.init()
before = peak()
try:
    decode(data, Reading(64))
except ImageError as error:
    print(error.error.kind, file=sys.stderr)
print(peak() - before)
"""


def memory(path: Path) -> int:
    """Bytes by which decoding a file raises the peak of a process's memory."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=True)
    return int(ran.stdout)


def lying_ico() -> bytes:
    """An icon of 16 × 16 whose only image is a PNG of 60,000 × 60,000."""
    inner = png(60_000, 60_000)
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22) + inner


def lying(kind: str, at: int, layout: str) -> bytes:
    """A small image whose width and height, which stand at that place, say 60,000."""
    file = BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind)
    data = bytearray(file.getvalue())
    struct.pack_into(layout, data, at, 60_000, 60_000)
    return bytes(data)


BOMBS = {
    "PNG": png(60_000, 60_000),
    "ICO": lying_ico(),
    "BMP": lying("BMP", 18, "<II"),
    "GIF": lying("GIF", 6, "<HH"),
    "TGA": lying("TGA", 12, "<HH"),
    "PPM": b"P6 60000 60000 255\n" + bytes(64),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_size_that_is_a_lie_is_too_large(kind: str) -> None:
    with pytest.raises(ImageError) as error:
        decode(BOMBS[kind], Reading(64))
    assert error.value.error.kind == "too-large"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_lie_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(BOMBS["ICO"])
    assert memory(path) < 32 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_an_honest_large_image_takes_few_bytes_a_pixel(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "large.tif"
    Image.fromarray(np.ones((SIDE, SIDE), dtype)).save(path, compression="tiff_adobe_deflate")
    assert memory(path) / SIDE**2 < 18


FOREIGN = {
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
    "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    "psd": b"8BPS\x00\x01" + bytes(6) + b"\x00\x03" + bytes(12),
}


def test_other_formats_named_as_images_are_rows_and_start_no_program(
    typed: Callable[..., Typed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, photos = tmp_path / "programs", tmp_path / "photos"
    for folder in (programs, photos):
        folder.mkdir()
    for name in ("gs", "magick", "convert", "rsvg-convert"):
        (programs / name).write_text(f"#!/bin/sh\ntouch '{tmp_path}/started'\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    for kind, data in FOREIGN.items():
        (photos / f"{kind}.jpg").write_bytes(data)
    ran = typed("caption", photos)
    assert ran.code == 3
    assert [row["error"].partition(":")[0] for row in ran.rows] == ["unsupported"] * len(FOREIGN)
    assert not (tmp_path / "started").exists()
