"""Mutated images, archives and manifests of every format, each read or refused: nothing else, and not for long.

`python -m tests.hostile.fuzz --cases 5000` reads them in a process that may die; it then names the case and goes on
behind it. A case is its number: `python -m tests.hostile.fuzz --first 1234 --cases 1` repeats it.
"""

import argparse
import csv
import gzip
import json
import random
import resource
import stat
import sys
import tarfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from io import BytesIO, StringIO
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from PIL import Image

from blip2cli.errors import Blip2Error, ImageError, UsageError
from blip2cli.images.decode import Reading, bytes_of, decode, known_formats
from blip2cli.images.processes.worker import keep_quiet
from blip2cli.inputs import ColumnChoice, open_source
from blip2cli.outputs.arrow import schema_of, table_of
from blip2cli.outputs.layout import Layout
from blip2cli.records import Result

SLOWEST = 5.0
"""Seconds that a case may take."""

MEMORY = 2 << 30
"""Bytes of address space that decoding may take beyond what the process has."""

READING = Reading(64)

ROW_ERRORS = ("missing", "unreadable", "truncated", "too-large")
"""What archives say of rows that have no image."""

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
    return [*encoded, *((kind, pack()) for kind, pack in ARCHIVES.items()), *manifests().items()]


def members() -> list[tuple[str, bytes]]:
    """Small samples with texts, one of them with a long name."""
    image = BytesIO()
    Image.new("RGB", (8, 8), "red").save(image, "PNG")
    said = json.dumps({"key": "a", "n": 1}).encode()
    return [(f"{key}{suffix}", data) for key in ("a", "b", "c" * 120) for suffix, data in
            ((".png", image.getvalue()), (".json", said), (".txt", b"a red square"))]  # fmt: skip


def packed_tar(mode: str = "w", kind: int = tarfile.PAX_FORMAT) -> bytes:
    """The samples in a tar, with links."""
    file = BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=kind) as archive:  # type: ignore[call-overload]
        for name, data in members():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, BytesIO(data))
        for name, target, link in (("d.png", "a.png", tarfile.LNKTYPE), ("e.png", "d.png", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = link, target
            archive.addfile(info)
    return file.getvalue()


def packed_zip(method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """The samples in a zip, with a link."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members():
            archive.writestr(name, data)
        link = zipfile.ZipInfo("d.png")
        link.external_attr = stat.S_IFLNK << 16
        archive.writestr(link, "a.png")
    return file.getvalue()


ARCHIVES: dict[str, Callable[[], bytes]] = {
    ".tar": packed_tar,
    ".TAR": lambda: packed_tar(kind=tarfile.GNU_FORMAT),
    ".tar.gz": lambda: packed_tar("w:gz"),
    ".zip": packed_zip,
    ".ZIP": lambda: packed_zip(zipfile.ZIP_STORED),
}
"""Suffix → an archive of that kind."""


@cache
def manifests() -> dict[str, bytes]:
    """The end of a file's name → a table in that format, compressed ones and several encodings among them."""
    table = pa.table(
        {
            "image": ["a.png", 'b "2".png', "Müller.png", None] * 8,
            "id": [1, None, 2**60, -3] * 8,
            "question": ["what?", "two\nlines", "a,b;c\td", ""] * 8,
            "deep": [{"a": [1.5, None], "b": "x"}, None, {"a": [], "b": None}, {"a": None, "b": "y"}] * 8,
        }
    )
    records = table.to_pylist()
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    text = StringIO()
    csv.writer(text).writerows([table.column_names, *(record.values() for record in records)])
    cells = text.getvalue()
    tabs = "question\timage\n" + '"a quote\ta.png\nplain\tb.png\n' * 8
    parquet, stream, file = BytesIO(), BytesIO(), BytesIO()
    pq.write_table(table, parquet, row_group_size=20)
    for target, opened in ((stream, pa.ipc.new_stream), (file, pa.ipc.new_file)):
        with opened(target, table.schema) as writing:
            writing.write_table(table, 10)
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    coco = {"images": images, "annotations": [{"image_id": 1, "caption": "a dog"}]}
    return {
        ".csv": cells.encode(), ".csv.gz": gzip.compress(cells.encode()), "16.csv": cells.encode("utf-16"),
        "semicolons.csv": cells.replace(",", ";").encode(), ".tsv": tabs.encode(), ".jsonl": lines.encode(),
        "16.jsonl": lines.encode("utf-16"), ".jsonl.zst": zstandard.compress(lines.encode()),
        ".parquet": parquet.getvalue(), ".arrow": stream.getvalue(), ".feather": file.getvalue(),
        ".json": json.dumps(coco).encode(), ".txt": b"a.png\nb/c.jpg\nhttp://h/d.png\n" * 8,
    }  # fmt: skip


def case(number: int) -> tuple[str, str, bytes]:
    """The format, the mutation and the bytes of a case."""
    rng = random.Random(number)
    kind, data = corpus()[number % len(corpus())]
    mutation = rng.choice(sorted(MUTATIONS if kind.lower() == ".tar" else MUTATIONS.keys() - {"lie_in_tar"}))
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


def lie_in_tar(data: bytearray, rng: random.Random) -> bytearray:
    """A header of a tar says another size, type or place to lead to, and has the right checksum."""
    at = rng.choice([at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"])
    size = rng.choice((0, -1, -512, -(1 << 40), 1 << 20, 1 << 33, 1 << 62, rng.getrandbits(64)))
    what = rng.choice(("size", "type", "link"))
    if what == "size":
        data[at + 124 : at + 136] = (size % 256**12 | 1 << 95).to_bytes(12, "big")
    elif what == "type":
        data[at + 156 : at + 157] = rng.choice((b"0", b"1", b"2", b"5", b"6", b"7", b"L", b"K", b"S", b"x", b"g", b"V"))
    else:
        data[at + 157 : at + 257] = rng.choice((b"a.png", b"../a", b"/a", b"d.png", b"e.png", b"")).ljust(100, b"\0")
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
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


MUTATIONS = {f.__name__: f for f in (flip_bits, truncate, lie_in_header, lie_in_tar, zero_run, splice, append, drop)}


def outcome(number: int) -> str:
    """Read a case; gives what came of it in a word, or the kind of its error. Raises AssertionError for all else."""
    kind, mutation, data = case(number)
    started = time.monotonic()
    try:
        if kind in ARCHIVES:
            result = read_archive(kind, data)
        else:
            result = read_manifest(kind, data) if kind in manifests() else read_image(data)
    except ImageError as error:
        result = error.error.kind
        assert str(error).isprintable(), repr(str(error))
    except Exception as error:
        raise AssertionError(f"case {number} ({kind}, {mutation}): {type(error).__name__}: {error}") from error
    assert time.monotonic() - started < SLOWEST, f"case {number} ({kind}, {mutation}) takes too long"
    return result


def read_image(data: bytes) -> str:
    """Raises ImageError."""
    pixels = decode(data, READING)
    assert pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8
    return "decoded"


def read_archive(suffix: str, data: bytes) -> str:
    """Read all rows of an archive, and the bytes of their images."""
    with TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        path.write_bytes(data)
        try:
            rows = list(open_source([str(path)], ColumnChoice()).rows())
        except UsageError:
            return "refused"
        for row in rows:
            assert row.error is None or row.error.kind in ROW_ERRORS, row.error
            if row.image is not None:
                bytes_of(row.image)
    assert len(rows) < 40, f"{len(rows)} rows of 5 images"
    return "unpacked with error rows" if any(row.error for row in rows) else "unpacked"


def read_manifest(end: str, data: bytes) -> str:
    """Read a manifest to its end, and put its rows into a table."""
    with TemporaryDirectory() as folder:
        path = Path(folder, f"m{end}")
        path.write_bytes(data)
        try:
            source = open_source([str(path)], ColumnChoice())
            rows = list(source.rows())
            assert source.count() == len(rows)
            layout = Layout({name: f"input_{name}" for name in source.column_names()}, (), source.schema, {})
            results = [Result(row, (), row.error) for row in rows]
            assert len(table_of(results, layout, schema_of(layout))) == len(rows)
        except Blip2Error as error:
            assert error.message and "\n" not in error.message + error.hint, repr(error.message)
            return "refused"
    return "listed with error rows" if any(row.error for row in rows) else "listed"


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
        counts["FAILED" if result.startswith("FAILED") else result] += 1
    print(", ".join(f"{count:,} {result}" for result, count in counts.most_common()))
    print(f"{given.cases:,} cases of {len(corpus())} kinds of file, {time.monotonic() - started:.0f} s")
    sys.exit(1 if counts["FAILED"] else 0)


if __name__ == "__main__":
    main()
