"""Tar and zip archives as inputs."""

import gzip
import io
import json
import random
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import webdataset

from blip2cli.errors import UsageError
from blip2cli.images.decode import bytes_of
from blip2cli.inputs import ColumnChoice, open_source
from blip2cli.inputs.names import expanded
from blip2cli.records import Row
from tests.conftest import Typed

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CIRCLE = (EXAMPLES / "red-circle.png").read_bytes()
Run = Callable[..., Typed]
Members = list[tuple[str, bytes]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def img2dataset(count: int, first: int = 0) -> Members:
    """Samples as img2dataset leaves them."""
    members: Members = []
    for number in range(first, first + count):
        key = f"{number:09}"
        said = {"key": key, "caption": f"alt {number}", "width": 64, "similarity": 0.5, "exif": {"a": [1]}}
        members += [(f"{key}.jpg", CIRCLE), (f"{key}.json", json.dumps(said).encode())]
        members.append((f"{key}.txt", f"alt {number}\n".encode()))
    return members


def tar(name: str, members: Members, mode: Any = "w") -> str:
    with tarfile.open(name, mode) as archive:
        for member, data in members:
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return name


def zipped(name: str, members: Members) -> str:
    with zipfile.ZipFile(name, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members:
            archive.writestr(member, data)
    return name


def rows(*inputs: str, start: int = 0, before: str | None = None, columns: ColumnChoice | None = None) -> list[Row]:
    return list(open_source(inputs, columns or ColumnChoice()).rows(start, before))


MAKERS: list[Callable[[Members], str]] = [
    lambda members: tar("a.tar", members),
    lambda members: tar("a.tar.gz", members, "w:gz"),
    lambda members: zipped("a.zip", members),
]


@pytest.mark.parametrize("make", MAKERS)
def test_a_sample_is_a_row_with_its_texts_as_columns(make: Callable[[Members], str]) -> None:
    name = make(img2dataset(3))
    found = rows(name)
    assert [row.name for row in found] == [f"{name}/{number:09}.jpg" for number in range(3)]
    expected = {"key": "000000001", "caption": "alt 1", "width": 64, "similarity": 0.5, "exif": {"a": [1]}}
    assert found[1].columns == {**expected, "txt": "alt 1", "more": None}
    assert all(row.image and bytes_of(row.image) == CIRCLE and row.error is None for row in found)
    schema = open_source([name], ColumnChoice()).schema()
    types = {"key": "string", "caption": "string", "width": "int64", "similarity": "double", "exif": "string"}
    assert {field.name: str(field.type) for field in schema} == {**types, "txt": "string", "more": "string"}


@pytest.mark.parametrize("make", MAKERS)
def test_every_place_to_go_on_gives_the_same_rest(make: Callable[[Members], str]) -> None:
    name = make(img2dataset(5))
    whole = rows(name)
    for start in range(1, 6):
        assert rows(name, start=start, before=whole[start - 1].name) == whole[start:]


def test_images_of_a_plain_tar_stay_in_it_for_the_workers_to_read() -> None:
    (row,) = rows(tar("a.tar", img2dataset(1)))
    assert row.image is not None and row.image.data is None and row.image.path == "a.tar"


def test_what_webdataset_writes_is_read() -> None:
    with webdataset.TarWriter("w.tar") as writer:
        for number in range(2):
            writer.write({"__key__": f"a/{number}", "png": CIRCLE, "cls": number, "json": {"n": number}})
    found = rows("w.tar")
    assert [(row.name, row.columns["cls"], row.columns["n"]) for row in found] == [
        ("w.tar/a/0.png", "0", 0),
        ("w.tar/a/1.png", "1", 1),
    ]


def test_odd_members() -> None:
    members = [
        ("._a.jpg", b"x"), ("__MACOSX/a.jpg", b"x"), ("a.left.jpg", CIRCLE), ("a.right.jpg", CIRCLE), ("a.npy", b"x"),
        ("b.json", b'{"n": 1}'), ("c.jpg", CIRCLE), ("c.json", b"[1]"), ("../d.jpg", CIRCLE),
    ]  # fmt: skip
    for name in (tar("a.tar", members), zipped("a.zip", members)):
        found = {row.name.removeprefix(name + "/"): row.error and str(row.error) for row in rows(name)}
        assert found == {
            "a.left.jpg": None,
            "a.right.jpg": None,
            "b": "missing: no image in the sample",
            "c.jpg": "unreadable: c.json is not a JSON object",
            "../d.jpg": None,
        }


def test_values_that_no_column_can_hold_are_kept_as_json(typed: Run) -> None:
    members = img2dataset(16)
    late = {"key": "late", "width": "wide", "similarity": 1 << 60, "licence": "x", "caption": ["a"]}
    members += [("late.png", CIRCLE), ("late.json", json.dumps(late).encode())]
    assert typed("caption", tar("a.tar", members), "--out", "o.parquet").code == 0
    row = pq.read_table("o.parquet").to_pylist()[-1]
    assert json.loads(row["more"]) == {"width": "wide", "similarity": 1 << 60, "licence": "x"}
    assert row["input_caption"] == '["a"]' and row["width"] is None and row["caption"] == "a red circle"


def test_a_range_is_one_data_set(typed: Run) -> None:
    for shard in range(3):
        tar(f"{shard:05}.tar", img2dataset(2, 2 * shard))
    (source,) = open_source(["{00000..00002}.tar"], ColumnChoice()).parts
    assert [row.columns["key"] for row in source.rows(3)] == ["000000003", "000000004", "000000005"]
    ran = typed("caption", "{00000..00001}.tar", "--out", "o.jsonl")
    assert ran.code == 0 and len(Path("o.jsonl").read_text().splitlines()) == 4
    assert "no such input: 00003.tar" in typed("caption", "{00002..00003}.tar").err


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("{08..11}.tar", ["08.tar", "09.tar", "10.tar", "11.tar"]),
        ("{002..000}.tar", ["002.tar", "001.tar", "000.tar"]),
        (f"{{0..{'9' * 5000}}}.tar", [f"{{0..{'9' * 5000}}}.tar"]),
        ("s3://b/{1..2}/{a,b}.tar", ["s3://b/1/a.tar", "s3://b/1/b.tar", "s3://b/2/a.tar", "s3://b/2/b.tar"]),
        ("{a}.tar", ["{a}.tar"]),
        ("plain.tar", ["plain.tar"]),
    ],
)
def test_what_a_range_stands_for(pattern: str, names: list[str]) -> None:
    assert expanded(pattern) == names


def test_a_range_without_end_is_refused() -> None:
    for pattern in ("{0..99999999999}.tar", "{0..9999}{0..9999}.tar"):
        with pytest.raises(UsageError, match="more than 1,000,000 names"):
            expanded(pattern)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_what_is_no_archive_and_what_is_empty(name: str) -> None:
    Path(name).write_bytes(b"no archive" * 200)
    with pytest.raises(UsageError, match=f"cannot read {name}"):
        rows(name)
    (zipped if name == "a.zip" else lambda name, _: tar(name, [], "w:gz" if "gz" in name else "w"))(name, [])
    with pytest.raises(UsageError, match=f"no images found in {name}"):
        rows(name)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_truncated_tar_gives_what_is_whole_and_says_so(mode: str) -> None:
    rng = random.Random(0)
    tar("a.tar", [(f"{number:03}.jpg", rng.randbytes(3000)) for number in range(30)], mode)
    data = Path("a.tar").read_bytes()
    Path("a.tar").write_bytes(data[: len(data) * 2 // 3])
    *good, last = rows("a.tar")
    assert len(good) > 10 and all(row.error is None for row in good[:-1])
    assert last.name.startswith("a.tar#") and str(last.error).startswith("truncated: ")


def test_a_damaged_header_is_not_taken_for_the_end() -> None:
    tar("a.tar", img2dataset(30))
    data = bytearray(Path("a.tar").read_bytes())
    with tarfile.open("a.tar") as archive:
        at = archive.getmembers()[45].offset
    data[at : at + 100] = b"\xff" * 100
    Path("a.tar").write_bytes(data)
    found = rows("a.tar")
    assert len(found) == 16 and str(found[-1].error) == "truncated: the archive is damaged"


@pytest.mark.parametrize("make", MAKERS)
def test_no_damage_ends_a_run_with_anything_but_a_message(make: Callable[[Members], str]) -> None:
    name = make(img2dataset(4))
    data = Path(name).read_bytes()
    rng = random.Random(1)
    for _ in range(150):
        broken = bytearray(data)
        for _ in range(rng.randrange(1, 6)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        Path(name).write_bytes(broken[: rng.choice([len(broken), rng.randrange(len(broken))])])
        try:
            rows(name)
        except UsageError:
            continue


def test_memory_does_not_grow_with_the_members() -> None:
    tar("a.tar", [(f"{number:06}.jpg", b"x") for number in range(6000)])
    grown = [peak_of("a.tar", 5500) - peak_of("a.tar", 500) for _ in range(3)]
    assert min(grown) < 200_000, "threads of earlier tests may allocate beside one of them, and not beside all"


def peak_of(name: str, rows_read: int) -> int:
    """Bytes that Python holds at most while so many rows are read."""
    tracemalloc.start()
    source = open_source([name], ColumnChoice()).rows()
    for _ in range(rows_read):
        next(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_questions_in_archives(typed: Run) -> None:
    said = [("a.png", CIRCLE), ("a.json", b'{"question": "what shape is it?"}'), ("b.png", CIRCLE)]
    ran = typed("vqa", tar("a.tar", said))
    assert [(row["answer"], row["error"]) for row in ran.rows] == [
        ("circle", None),
        (None, "missing: column question is empty"),
    ]


def test_compressed_manifests(typed: Run) -> None:
    line = json.dumps({"image": str(EXAMPLES / "red-circle.png")}) + "\n"
    Path("m.jsonl.gz").write_bytes(gzip.compress(line.encode()) * 2)
    Path("m.csv.gz").write_bytes(gzip.compress(f"image\n{EXAMPLES / 'red-circle.png'}\n".encode()))
    assert [row["caption"] for row in typed("caption", "m.jsonl.gz", "m.csv.gz").rows] == ["a red circle"] * 3
    Path("m.jsonl.gz").write_bytes(gzip.compress(line.encode())[:-9])
    ran = typed("caption", "m.jsonl.gz")
    assert ran.code == 2 and "cannot read m.jsonl.gz: the compressed data are damaged" in ran.err


def test_bad_images_in_archives_are_error_rows(typed: Run) -> None:
    for name in (
        tar("a.tar", [("a.png", CIRCLE), ("b.png", b"no")]),
        zipped("a.zip", [("a.png", CIRCLE), ("b.png", b"")]),
    ):
        ran = typed("caption", name)
        assert ran.code == 3 and [row["caption"] for row in ran.rows] == ["a red circle", None]


@pytest.mark.parametrize("between", [0, 512, 1 << 20])
@pytest.mark.parametrize("compressed", [False, True])
def test_archives_put_behind_each_other_are_read(between: int, compressed: bool) -> None:
    first, second = (Path(tar(f"{at}.tar", img2dataset(2, at))).read_bytes() for at in (0, 1))
    data = first + bytes(between) + second + b"something else"
    name = "all.tar.gz" if compressed else "all.tar"
    Path(name).write_bytes(gzip.compress(data) if compressed else data)
    found = rows(name)
    assert [row.columns["key"] for row in found] == ["000000000", "000000001", "000000001", "000000002"]
    assert [row.columns["txt"] for row in found] == ["alt 0", "alt 1", "alt 1", "alt 2"]
    assert not any(row.error for row in found)
    assert [row.name for row in rows(name, start=3, before=found[2].name)] == [found[3].name]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", MAKERS)
def test_members_of_one_name_are_samples_of_their_own(make: Callable[[Members], str]) -> None:
    name = make([("a.png", CIRCLE), ("a.txt", b"one"), ("a.png", CIRCLE + b"2"), ("a.txt", b"two")])
    found = rows(name)
    source = open_source([name], ColumnChoice())
    assert source.count() in (None, len(found))
    for start in range(1, len(found)):
        assert rows(name, start=start, before=found[start - 1].name) == found[start:]
    if not name.endswith(".zip"):  # whose members are sorted
        assert [row.columns["txt"] for row in found] == ["one", "two"]
    assert [len(bytes_of(row.image)) for row in found if row.image] == [len(CIRCLE), len(CIRCLE) + 1]


def test_a_tar_cut_between_two_members_says_so() -> None:
    name = tar("a.tar", [("a.png", CIRCLE), ("b.png", CIRCLE)])
    data = Path(name).read_bytes()
    Path(name).write_bytes(data[: data.index(b"b.png")])
    whole, end = rows(name)
    assert whole.error is None
    assert str(end.error) == "truncated: the archive ends without its end mark; it may be cut short"


def test_an_encrypted_member_is_named_as_one() -> None:
    name = zipped("a.zip", [("a.png", CIRCLE), ("b.png", CIRCLE)])
    data = bytearray(Path(name).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    Path(name).write_bytes(data)
    first, second = rows(name)
    assert str(first.error) == "unreadable: the member is encrypted"
    assert second.error is None


def test_a_key_of_json_that_is_half_a_surrogate_pair() -> None:
    (row,) = rows(tar("a.tar", [("a.png", CIRCLE), ("a.json", b'{"\\ud83d": 1, "b": 2}')]))
    assert row.columns["b"] == 2 and json.loads(row.columns["more"]) == {"\ud83d": 1}
