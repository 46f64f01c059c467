"""Images that were tampered with become pixels or an error row; the short form of `make fuzz`."""

import os
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable

import pytest

from blip2cli.errors import ImageError
from blip2cli.images.decode import Reading, decode
from tests.hostile import fuzz
from tests.hostile.fuzz import outcomes


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # a fork beside threads, by Python 3.12
def test_mutated_images_are_decoded_or_refused() -> None:
    counts: Counter[str] = Counter()
    for _, result in outcomes(0, 300):
        assert not result.startswith("FAILED"), result
        counts[result] += 1
    assert counts["decoded"] > 30 and counts["truncated"] > 30 and counts["unsupported"] > 10


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("death", [lambda: os._exit(9), lambda: time.sleep(60)], ids=["crash", "hang"])
def test_a_case_that_crashes_or_hangs_is_named_and_the_next_one_follows(
    death: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "SLOWEST", 0.5)
    monkeypatch.setattr(fuzz, "outcome", lambda number: death() if number == 1 else "decoded")
    first, second, third = fuzz.outcomes(0, 3)
    assert first == (0, "decoded") and third == (2, "decoded")
    assert second[1].startswith("FAILED case 1 ('JPEG', ") and "ends the process" in second[1]


def png(width: int, height: int) -> bytes:
    """A PNG that says it has that size, and has a few bytes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(100_000, 100_000), (2_000_000_000, 2), (13_378, 13_378)])
def test_bombs_are_refused_before_they_are_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError) as refused:
        decode(png(*size), Reading(64))
    assert refused.value.error.kind == "too-large"


@pytest.mark.parametrize(
    "data",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"%PDF-1.7\n",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        b"8BPS\x00\x01" + bytes(6) + b"\x00\x03" + bytes(12),
        b"SIMPLE  =                    T" + b" " * 2850,
        b"\x89HDF\r\n\x1a\n" + bytes(64),
        b"GIMP" + bytes(64),
        b"\xd7\xcd\xc6\x9a" + bytes(64),
    ],
    ids=["EPS", "PDF", "SVG", "PSD", "FITS", "HDF5", "GIMP", "WMF"],
)
def test_other_formats_are_not_opened(data: bytes) -> None:
    with pytest.raises(ImageError) as refused:
        decode(data, Reading(64))
    assert refused.value.error.kind == "unsupported"
