"""Mutated images of every format, each decoded to pixels or refused: nothing else, and not for long.

`python -m tests.hostile.fuzz --cases 5000` decodes in a process that may die; it then names the case and goes on behind
it. A case is its number: `python -m tests.hostile.fuzz --first 1234 --cases 1` repeats it.
"""

import argparse
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

from blip2cli.errors import ImageError
from blip2cli.images.decode import Reading, decode, known_formats
from blip2cli.images.processes import keep_quiet

SLOWEST = 5.0
"""Seconds that a case may take."""

MEMORY = 2 << 30
"""Bytes of address space that decoding may take beyond what the process has."""

READING = Reading(64)
KINDS = [
    ("JPEG", {"quality": 90}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True}),
    ("GIF", {}), ("BMP", {}), ("DIB", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "jpeg"}), ("TIFF", {"compression": "tiff_deflate"}), ("AVIF", {}), ("PPM", {}),
    ("JPEG2000", {}), ("ICO", {}), ("TGA", {}), ("TGA", {"compression": "tga_rle"}), ("PCX", {}), ("QOI", {}),
    ("MPO", {}), ("HEIF", {}),
]  # fmt: skip


@cache
def corpus() -> list[tuple[str, bytes]]:
    """A picture in every format that this Pillow writes."""
    rng = np.random.default_rng(0)
    grid = np.linspace(0, 255, 96 * 128).reshape(96, 128)
    picture = np.stack([grid, grid.T.reshape(96, 128), rng.integers(0, 256, grid.shape)], axis=-1).astype(np.uint8)
    encoded = []
    known_formats()
    for kind, options in KINDS:
        if kind not in Image.SAVE:
            continue
        file = BytesIO()
        Image.fromarray(picture).save(file, kind, **options)
        encoded.append((kind, file.getvalue()))
    return encoded


def case(number: int) -> tuple[str, str, bytes]:
    """The format, the mutation and the bytes of a case."""
    rng = random.Random(number)
    kind, data = corpus()[number % len(corpus())]
    mutation = rng.choice(sorted(MUTATIONS))
    return kind, mutation, bytes(MUTATIONS[mutation](bytearray(data), rng))


def flip_bits(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 4, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def truncate(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(len(data))]


def lie_in_header(data: bytearray, rng: random.Random) -> bytearray:
    """Sizes and lengths stand in the first bytes, in either order of bytes."""
    at = rng.randrange(2, min(96, len(data) - 4))
    lie = rng.choice((0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, rng.getrandbits(32)))
    width = rng.choice((2, 4))
    data[at : at + width] = (lie & (256**width - 1)).to_bytes(width, rng.choice(("big", "little")))
    return data


def zero_run(data: bytearray, rng: random.Random) -> bytearray:
    at, length = rng.randrange(len(data)), rng.choice((4, 64, 1024))
    data[at : at + length] = bytes(len(data[at : at + length]))
    return data


def splice(data: bytearray, rng: random.Random) -> bytearray:
    other = rng.choice(corpus())[1]
    return data[: rng.randrange(len(data))] + bytearray(other[rng.randrange(len(other)) :])


def append(data: bytearray, rng: random.Random) -> bytearray:
    return data + bytearray(rng.randbytes(rng.choice((1, 100, 5000))))


def drop(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 7, 300))]
    return data


MUTATIONS = {f.__name__: f for f in (flip_bits, truncate, lie_in_header, zero_run, splice, append, drop)}


def outcome(number: int) -> str:
    """Decode a case; gives "decoded" or the kind of its error. Raises AssertionError where it is neither."""
    kind, mutation, data = case(number)
    started = time.monotonic()
    try:
        pixels = decode(data, READING)
        result = "decoded"
        assert pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8
    except ImageError as error:
        result = error.kind
        assert str(error).isprintable(), repr(str(error))
    except Exception as error:
        raise AssertionError(f"case {number} ({kind}, {mutation}): {type(error).__name__}: {error}") from error
    assert time.monotonic() - started < SLOWEST, f"case {number} ({kind}, {mutation}) takes too long"
    return result


def _send_outcomes(connection: Connection, first: int, last: int) -> None:
    keep_quiet()
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number in range(first, last):
        try:
            connection.send(outcome(number))
        except AssertionError as error:
            connection.send(f"FAILED {error}")


def outcomes(first: int, last: int) -> Iterator[tuple[int, str]]:
    """The outcome of every case, the process begun anew behind one that it dies of."""
    context = get_context("fork")
    while first < last:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_send_outcomes, args=(theirs, first, last))
        process.start()
        theirs.close()
        try:
            while first < last:
                if not ours.poll(2 * SLOWEST):
                    process.kill()
                yield first, ours.recv()
                first += 1
        except EOFError:
            process.join()
            yield first, f"FAILED case {first} {case(first)[:2]} ends the process: {process.exitcode}"
            first += 1
        process.join()


def main() -> None:
    """Decode the cases, report, and exit with 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    started, counts = time.monotonic(), Counter[str]()
    for _, result in outcomes(given.first, given.first + given.cases):
        if result.startswith("FAILED"):
            print(result)
        counts[result.split()[0]] += 1
    print(", ".join(f"{count:,} {result}" for result, count in counts.most_common()))
    print(f"{given.cases:,} cases of {len(corpus())} kinds of file, {time.monotonic() - started:.0f} s")
    sys.exit(1 if counts["FAILED"] else 0)


if __name__ == "__main__":
    main()
