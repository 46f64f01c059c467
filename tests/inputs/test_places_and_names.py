"""Where images are: names of any bytes, deep folders, pipes, structs, splits and questions as they are published."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from blip2cli.errors import UsageError
from blip2cli.inputs import ColumnChoice, open_source
from blip2cli.records import ImageRef, Row
from tests.conftest import Typed

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "red-circle.png"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(*names: str, **columns: Any) -> list[Row]:
    return list(open_source(names, ColumnChoice(**columns)).rows())


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet", "arrow"])
def test_what_a_run_wrote_finds_the_same_files(typed: Callable[..., Typed], suffix: str) -> None:
    Path(os.fsdecode(b"caf\xe9.png")).write_bytes(EXAMPLE.read_bytes())
    Path("na\\x41ive.png").write_bytes(EXAMPLE.read_bytes())
    assert typed("caption", ".", "--out", f"o.{suffix}").code == 0
    found = rows(f"o.{suffix}")
    assert [row.name for row in found] == ["./caf\\xe9.png", "./na\\x41ive.png"]
    assert all(row.image and os.path.isfile(row.image.path or "") for row in found)
    again = typed("embed", f"o.{suffix}", "--out", "features.parquet")
    assert again.code == 0 and pq.read_table("features.parquet")["image"].to_pylist() == [row.name for row in found]


def test_names_that_python_wrote_as_json_are_found() -> None:
    name = os.fsdecode(b"caf\xe9.png")
    touch(name)
    Path("m.jsonl").write_text(json.dumps({"image": name}))
    (row,) = rows("m.jsonl")
    assert (row.name, row.image) == ("caf\\xe9.png", ImageRef(path=name))


@pytest.fixture
def deep() -> Iterator[str]:
    """A folder 1,500 levels deep with an image at its end, and one beyond the longest path of the system."""
    top = os.getcwd()
    levels = ["deep", *["d"] * 1500, *["long" * 60] * 5]
    for level in levels:
        os.mkdir(level)
        os.chdir(level)
        if level == "d":
            last = os.getcwd()
    Path("beyond.png").touch()
    Path(last, "end.png").touch()
    os.chdir(top)
    yield "deep"
    os.chdir(top)
    for level in levels:  # step by step, as no path leads there
        os.chdir(level)
    os.remove("beyond.png")
    Path(last, "end.png").unlink()
    for level in reversed(levels):
        os.chdir("..")
        os.rmdir(level)


def test_a_deep_folder_is_walked_and_what_is_out_of_reach_is_an_error_row(deep: str) -> None:
    end = "deep/" + "d/" * 1500 + "end.png"
    for found in (rows(deep), rows("deep/**/*.png")):
        assert end in [row.name for row in found]
        assert len(found) == 2 and all(len(row.name) > 3900 for row in found if row.name != end)


def test_a_glob_of_any_depth_gives_what_it_gave() -> None:
    touch("a.png", "x/a.png", "x/y/b.png", "x/y/z/a.png", ".hidden/a.png", "x/.h/a.png", "w/a.jpg")
    assert [row.name for row in rows("**/a.png")] == ["a.png", "x/a.png", "x/y/z/a.png"]
    assert [row.name for row in rows("x/**/*.png")] == ["x/a.png", "x/y/b.png", "x/y/z/a.png"]
    assert [row.name for row in rows("?/**/y/**/[ab].png")] == ["x/y/b.png", "x/y/z/a.png"]
    assert [row.name for row in rows("x/**")] == ["x/a.png", "x/y/b.png", "x/y/z/a.png"]
    assert [row.name for row in rows("./**/.h/*.png")] == ["./x/.h/a.png"]
    assert [row.name for row in rows(f"{os.getcwd()}/w/**/*.jpg")] == [f"{os.getcwd()}/w/a.jpg"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "arrow", "json", "txt", "tar", "zip", "csv.gz"])
def test_a_pipe_or_a_device_is_not_a_manifest(suffix: str) -> None:
    os.mkfifo(f"pipe.{suffix}")
    os.symlink(f"pipe.{suffix}", f"link.{suffix}")
    os.symlink("/dev/zero", f"zero.{suffix}")
    for name, kind in ((f"pipe.{suffix}", "a pipe"), (f"link.{suffix}", "a pipe"), (f"zero.{suffix}", "a device")):
        with pytest.raises(UsageError, match=f"{name} is not a regular file, but {kind}"):
            rows(name)
    with pytest.raises(UsageError, match="is not a regular file"):
        rows(f"*.{suffix}")


def test_a_pipe_in_a_folder_of_tables_or_as_metadata_is_refused() -> None:
    Path("tables").mkdir()
    os.mkfifo("tables/a.csv")
    touch("photos/a.png")
    os.mkfifo("photos/metadata.csv")
    for folder in ("tables", "photos"):
        with pytest.raises(UsageError, match="is not a regular file, but a pipe"):
            rows(folder)


def test_a_struct_with_empty_bytes_is_the_file_that_it_names() -> None:
    images = [{"bytes": b"", "path": "a.png"}, {"bytes": b"x", "path": "a.png"}, {"bytes": b"", "path": None}]
    pq.write_table(pa.table({"image": images}), "m.parquet")
    assert [row.image for row in rows("m.parquet")] == [
        ImageRef(path="a.png"),
        ImageRef(data=b"x"),
        ImageRef(data=b""),
    ]


@pytest.mark.parametrize("name", ["url", "image_url", "img_url", "URL"])
def test_columns_of_urls_are_found_where_urls_are_allowed(name: str) -> None:
    Path("m.jsonl").write_text(json.dumps({"TEXT": "x", name: "http://h/a.jpg"}))
    assert rows("m.jsonl", allow_remote=True)[0].image == ImageRef(url="http://h/a.jpg")
    with pytest.raises(UsageError) as error:
        rows("m.jsonl")
    assert "--allow-remote" in error.value.hint


def split(images: list[dict[str, Any]]) -> None:
    Path("split.json").write_text(json.dumps({"dataset": "coco", "images": images}))


def test_karpathys_split_of_coco() -> None:
    sentences = [{"raw": " A shape. ", "tokens": ["a"]}, {"raw": "Another.", "tokens": []}, {"tokens": []}]
    image = {"filepath": "val2014", "filename": "c_9.jpg", "imgid": 0, "cocoid": 9, "split": "test", "sentids": [1]}
    split([{**image, "sentences": sentences}, {**image, "cocoid": 8, "sentences": []}, 5])  # type: ignore[list-item]
    first, second, third = rows("split.json")
    assert (first.name, first.image) == ("val2014/c_9.jpg", ImageRef(path="val2014/c_9.jpg"))
    assert first.columns == {"image_id": 9, "imgid": 0, "split": "test", "captions": ["A shape.", "Another."]}
    assert second.columns["captions"] == [] and str(third.error) == "unreadable: entry 3 is not a JSON object"


def test_karpathys_split_of_flickr_has_no_folder_and_no_coco_number() -> None:
    split([{"filename": "1.jpg", "imgid": 3, "split": "val", "sentids": [], "sentences": [{"raw": "a"}]}])
    os.mkdir("pictures")
    (row,) = rows("split.json", root="pictures")
    assert row.image == ImageRef(path="pictures/1.jpg")
    assert row.columns["image_id"] == 3


@pytest.mark.parametrize(
    ("there", "named"),
    [
        (["COCO_val2014_000000000009.jpg"], "COCO_val2014_000000000009.jpg"),
        (["000000000009.jpg"], "000000000009.jpg"),
        (["9.jpg"], "9.jpg"),
        (["9.png"], "9.png"),
        (["12.png"], "9.jpg"),
        ([], "COCO_val2014_000000000009.jpg"),
    ],
)
def test_images_of_questions_are_named_as_those_that_are_there(there: list[str], named: str) -> None:
    touch(*there)
    questions = [{"image_id": 9, "question": "?", "question_id": 1}, {"image_id": "12", "question": "?"}]
    Path("q.json").write_text(json.dumps({"data_subtype": "val2014", "questions": questions}))
    assert rows("q.json", text="question")[0].name == named


def test_images_of_questions_with_ids_that_are_no_numbers() -> None:
    touch("a1.png")
    questions = [{"image_id": "a1", "question": "?"}, {"image_id": "b2", "question": "?"}, {"image_id": None}]
    Path("q.json").write_text(json.dumps({"questions": questions}))
    assert [row.name for row in rows("q.json", text="question")] == ["a1.png", "b2.jpg", "q.json#2"]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_large_rows_of_one_group_are_read_in_small_pieces(kind: str) -> None:
    table = pa.table({"image": [bytes([number]) * 100_000 for number in range(256)] * 4})
    if kind == "parquet":
        pq.write_table(table, "m.parquet", row_group_size=2000, use_dictionary=False, write_batch_size=16)
    else:
        feather.write_feather(table, "m.arrow", "uncompressed", chunksize=2000)
    del table
    before, most = pa.total_allocated_bytes(), 0
    for number, row in enumerate(open_source([f"m.{kind}"], ColumnChoice()).rows()):
        most = max(most, pa.total_allocated_bytes() - before)
        assert row.image and row.image.data == bytes([number % 256]) * 100_000
    assert number == 1023 and most < 64 << 20


def test_a_parquet_file_that_has_lost_its_row_groups_is_refused() -> None:
    pq.write_table(pa.table({"image": ["a.png"] * 4}), "m.parquet")
    pq.write_table(pa.table({"image": ["a.png"] * 4}).slice(0, 0), "none.parquet")
    assert rows("none.parquet") == []
    data = Path("m.parquet").read_bytes()
    footer = int.from_bytes(data[-8:-4], "little")
    start = len(data) - 8 - footer
    groups = data.index(b"\x19\x1c", start + 20)  # the list of row groups: a list of one struct
    Path("m.parquet").write_bytes(data[:groups] + b"\x19\x0c" + data[groups + 2 :])
    with pytest.raises(UsageError, match=r"cannot read m\.parquet"):
        rows("m.parquet")


def test_half_a_surrogate_pair_beside_an_escape_names_no_file() -> None:
    Path("m.jsonl").write_text('{"image": "\\ud800 \\\\xe9.png"}')
    assert rows("m.jsonl")[0].name == "\\ud800 \\xe9.png"
