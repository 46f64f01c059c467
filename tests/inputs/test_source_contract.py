"""What every kind of source promises, for all that are registered: one that is added is tested here without being told.

A source gives the same rows in the same order whenever it is read, from the start or from the middle, and knows its
columns before its first row.
"""

import gzip
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import zstandard

from blip2cli.inputs import FILE_FORMATS, ColumnChoice, Sources, open_source

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
IMAGES = sorted(EXAMPLES.rglob("*.png"))[:7]


@dataclass(frozen=True)
class Written:
    """An input, and the names of the images that its rows are about, without their folders."""

    path: Path
    images: list[str]


def write_arrow(path: Path) -> Written:
    table = pa.table({"image": [str(image) for image in IMAGES], "id": list(range(len(IMAGES)))})
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        pa.feather.write_feather(table, path)
    return Written(path, [image.name for image in IMAGES])


def write_jsonl(path: Path) -> Written:
    lines = [json.dumps({"image": str(image), "id": at}) for at, image in enumerate(IMAGES)]
    path.write_bytes(compressed(path, ("\n".join(lines) + "\n").encode()))
    return Written(path, [image.name for image in IMAGES])


def write_csv(path: Path) -> Written:
    mark = "\t" if ".tsv" in path.suffixes else ","
    lines = [f"image{mark}id", *(f"{image}{mark}{at}" for at, image in enumerate(IMAGES))]
    path.write_bytes(compressed(path, ("\n".join(lines) + "\n").encode()))
    return Written(path, [image.name for image in IMAGES])


def write_tar(path: Path) -> Written:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for image in IMAGES:
            tar.add(image, image.name)
    return Written(path, [image.name for image in IMAGES])


def write_zst_tar(path: Path) -> Written:
    plain = write_tar(path.with_suffix("")).path
    path.write_bytes(zstandard.compress(plain.read_bytes()))
    plain.unlink()
    return Written(path, [image.name for image in IMAGES])


def write_zip(path: Path) -> Written:
    with zipfile.ZipFile(path, "w") as file:
        for image in IMAGES:
            file.write(image, image.name)
    return Written(path, [image.name for image in IMAGES])


def write_annotations(path: Path) -> Written:
    images = [{"id": at, "file_name": str(image)} for at, image in enumerate(IMAGES)]
    path.write_text(json.dumps({"images": images, "annotations": []}))
    return Written(path, [image.name for image in IMAGES])


def compressed(path: Path, data: bytes) -> bytes:
    """The data as the last suffix says."""
    if path.suffix == ".gz":
        return gzip.compress(data)
    return zstandard.compress(data) if path.suffix == ".zst" else data


def write_list(path: Path) -> Written:
    path.write_text("".join(f"{image}\n" for image in IMAGES))
    return Written(path, [image.name for image in IMAGES])


WRITERS: dict[str, Callable[[Path], Written]] = {
    ".parquet": write_arrow,
    ".arrow": write_arrow,
    ".feather": write_arrow,
    ".ipc": write_arrow,
    ".jsonl": write_jsonl,
    ".jsonl.gz": write_jsonl,
    ".jsonl.zst": write_jsonl,
    ".ndjson": write_jsonl,
    ".csv": write_csv,
    ".csv.gz": write_csv,
    ".csv.zst": write_csv,
    ".tsv": write_csv,
    ".tsv.gz": write_csv,
    ".tsv.zst": write_csv,
    ".tar": write_tar,
    ".tar.gz": write_tar,
    ".tgz": write_tar,
    ".tar.zst": write_zst_tar,
    ".zip": write_zip,
    ".json": write_annotations,
    ".txt": write_list,
}
"""Suffix → what writes such an input."""


def writer_of(suffix: str) -> Callable[[Path], Written]:
    if suffix not in WRITERS:
        pytest.fail(f"say in WRITERS how an input with the suffix {suffix} is written")
    return WRITERS[suffix]


SUFFIXES = [suffix for file_format in FILE_FORMATS.values() for suffix in file_format.suffixes]


@pytest.fixture(params=[*SUFFIXES, "folder", "imagefolder"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Written]:
    """An input of each registered kind, and of each kind of folder."""
    if request.param == "folder":
        yield Written(EXAMPLES, [path.name for path in sorted(EXAMPLES.rglob("*.[pj][np]g"))])
    elif request.param == "imagefolder":
        for image in IMAGES:
            (tmp_path / image.name).write_bytes(image.read_bytes())
        lines = [json.dumps({"file_name": image.name, "text": image.stem}) + "\n" for image in IMAGES]
        (tmp_path / "metadata.jsonl").write_text("".join(lines))
        yield Written(tmp_path, [image.name for image in IMAGES])
    else:
        yield writer_of(request.param)(tmp_path / f"input{request.param}")


def opened(written: Written) -> Sources:
    return open_source([str(written.path)], ColumnChoice())


def test_it_gives_its_rows_twice_in_the_same_order(written: Written) -> None:
    source = opened(written)
    rows = list(source.rows())
    assert [row.error and str(row.error) for row in rows] == [None] * len(written.images)
    assert sorted(row.name.rpartition("/")[2] for row in rows) == sorted(written.images)
    assert rows == list(source.rows()) == list(opened(written).rows())
    assert [row.index for row in rows] == list(range(len(rows)))


def test_it_goes_on_from_any_row(written: Written) -> None:
    rows = list(opened(written).rows())
    for start in range(1, len(rows) + 1):
        assert list(opened(written).rows(start, rows[start - 1].name)) == rows[start:]


def test_it_counts_its_rows_or_says_that_it_cannot(written: Written) -> None:
    assert opened(written).count() in (None, len(written.images))


def test_it_knows_its_columns_before_its_rows(written: Written) -> None:
    source = opened(written)
    names = source.column_names()
    assert names == source.schema().names
    for row in source.rows():
        assert set(row.columns) <= set(names)


def test_it_gives_the_same_rows_split_and_counted(written: Written) -> None:
    source = opened(written)
    rows = list(source.rows())
    split = source.split()
    counted = split.with_counts([len(list(part.rows())) for part in split.parts if part.count() is None])
    assert list(counted.rows()) == rows and counted.count() == len(rows)
    assert (counted.files, counted.holds_texts) == (source.files, source.holds_texts)
    assert (counted.unread(), counted.schema()) == (source.unread(), source.schema())


def test_it_names_what_it_reads(written: Written) -> None:
    assert opened(written).files == [str(written.path)]
