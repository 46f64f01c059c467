"""Parquet, JSONL and CSV manifests: where the image is, what is carried, and what is wrong with a row."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from blip2cli.errors import Blip2Error, UsageError
from blip2cli.inputs import BY_SUFFIX, ColumnChoice, Sources, open_source
from blip2cli.records import ImageRef, Row


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def as_jsonl(path: str, records: Sequence[dict[str, Any]]) -> None:
    Path(path).write_text("".join(json.dumps(record) + "\n" for record in records))


def as_parquet(path: str, records: Sequence[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(list(records)), path)


def as_stream(path: str, records: Sequence[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(list(records))
    with pa.ipc.new_stream(path, table.schema) as file:
        file.write_table(table)


def as_feather(path: str, records: Sequence[dict[str, Any]]) -> None:
    feather.write_feather(pa.Table.from_pylist(list(records)), path)


def as_json(path: str, records: Sequence[dict[str, Any]]) -> None:
    Path(path).write_text(json.dumps(records))


def as_csv(path: str, records: Sequence[dict[str, Any]]) -> None:
    mark = "\t" if path.endswith(".tsv") else ","
    lines = [mark.join(records[0]), *(mark.join(map(str, record.values())) for record in records)]
    Path(path).write_text("\n".join(lines) + "\n")


WRITERS: dict[str, Callable[[str, Sequence[dict[str, Any]]], None]] = {
    ".parquet": as_parquet,
    ".jsonl": as_jsonl,
    ".ndjson": as_jsonl,
    ".csv": as_csv,
    ".tsv": as_csv,
    ".arrow": as_stream,
    ".feather": as_feather,
    ".ipc": as_feather,
    ".json": as_json,
}


def source(name: str, columns: ColumnChoice | None = None) -> Sources:
    return open_source([name], columns or ColumnChoice())


def rows(name: str, columns: ColumnChoice | None = None) -> list[Row]:
    return list(source(name, columns).rows())


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_kind_reads_paths_relative_to_itself_and_carries_the_rest(suffix: str) -> None:
    Path("data").mkdir()
    name = f"data/m{suffix}"
    WRITERS[suffix](name, [{"id": 7, "image": "sub/a.jpg", "note": "x"}, {"id": 8, "image": "/b.jpg", "note": "y"}])
    first, second = rows(name)
    assert (first.name, first.image) == ("sub/a.jpg", ImageRef(path="data/sub/a.jpg"))
    assert (second.name, second.image) == ("/b.jpg", ImageRef(path="/b.jpg"))
    assert [str(value) for value in first.columns.values()] == ["7", "x"]
    assert source(name).count() == 2
    assert source(name).column_names() == source(name).schema().names == ["id", "note"]


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_kind_gives_the_questions_of_its_column(suffix: str) -> None:
    WRITERS[suffix](f"m{suffix}", [{"image": "a.jpg", "question": "who?", "id": 1}])
    (row,) = rows(f"m{suffix}", ColumnChoice(text="question", text_required=True))
    assert row.text == "who?" and list(row.columns) == ["id"]


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_missing_column_is_named_with_the_columns_there_are(suffix: str) -> None:
    name = f"m{suffix}"
    WRITERS[suffix](name, [{"picture": "a.jpg", "id": 1}])
    for choice, missing in (
        (ColumnChoice(), "image column"),
        (ColumnChoice("photo"), "column photo"),
        (ColumnChoice("picture", "question", text_required=True), "column question"),
    ):
        with pytest.raises(UsageError, match=f"has no {missing}") as error:
            source(name, choice)
        assert "It has: picture, id." in error.value.hint
    assert rows(name, ColumnChoice("picture"))[0].name == "a.jpg"


def test_images_in_a_parquet_manifest_are_bytes_or_hugging_face_structs() -> None:
    table = pa.table(
        {
            "image": [{"bytes": b"1", "path": "x/1.jpg"}, {"bytes": b"2", "path": None}, {"path": "3.jpg"}],
            "raw": [b"4", None, b""],
            "id": [1, 2, 3],
        }
    )  # fmt: skip
    pq.write_table(table, "m.parquet")
    structs = rows("m.parquet")
    assert [row.name for row in structs] == ["x/1.jpg", "m.parquet#1", "3.jpg"]
    assert [row.image for row in structs] == [ImageRef(data=b"1"), ImageRef(data=b"2"), ImageRef(path="3.jpg")]
    raw = rows("m.parquet", ColumnChoice("raw"))
    assert [row.name for row in raw] == [f"m.parquet#{number}" for number in range(3)]
    assert [row.error and str(row.error) for row in raw] == [None, "missing: column raw is empty", None]
    assert raw[2].image == ImageRef(data=b"")


@pytest.mark.parametrize("kind", [pa.large_binary(), pa.binary_view(), pa.binary(3), pa.large_string()])
def test_other_arrow_types_of_bytes_and_paths(kind: pa.DataType) -> None:
    try:
        pq.write_table(pa.table({"image": pa.array([b"abc"], pa.binary()).cast(kind)}), "m.parquet")
    except pa.ArrowException:
        pytest.skip(f"this pyarrow cannot write {kind}")
    (row,) = rows("m.parquet")
    assert row.image == (ImageRef(path="abc") if kind == pa.large_string() else ImageRef(data=b"abc"))


def test_cells_that_name_no_image_are_error_rows() -> None:
    as_jsonl("m.jsonl", [{"image": cell} for cell in (None, "", 5, ["a.jpg"], "http://x/a.jpg", {"url": "b"}, {})])
    found = rows("m.jsonl")
    assert all(row.image is None and row.error for row in found)
    assert [row.error.kind for row in found if row.error] == [
        *("missing", "missing", "unsupported", "unsupported", "unsupported", "unsupported", "unsupported")
    ]
    unnamed = [f"m.jsonl#{number}" for number in range(7)]
    assert [row.name for row in found] == [*unnamed[:4], "http://x/a.jpg", *unnamed[5:]]


def test_a_bad_json_line_is_an_error_row_in_its_place() -> None:
    Path("m.jsonl").write_bytes(
        b'\xef\xbb\xbf{"image": "a.jpg", "n": 1}\n\n{"image": \n[1]\n{"image": "b.jpg"}\n\xff\n'
    )
    found = rows("m.jsonl")
    assert [row.name for row in found] == ["a.jpg", "m.jsonl#1", "m.jsonl#2", "b.jpg", "m.jsonl#4"]
    assert [row.error and str(row.error) for row in found] == [
        None,
        "unreadable: line 3 is not a JSON object",
        "unreadable: line 4 is not a JSON object",
        None,
        "unreadable: line 6 is not UTF-8",
    ]
    assert found[3].columns == {"n": None}
    assert source("m.jsonl").count() == 5


def test_text_that_is_half_a_surrogate_pair_is_escaped() -> None:
    Path("m.jsonl").write_text('{"image": "\\ud800.jpg", "question": "\\udfff?"}\n')
    (row,) = rows("m.jsonl", ColumnChoice(text="question"))
    assert (row.name, row.text) == ("\\ud800.jpg", "\\udfff?")


def test_csv_as_spreadsheets_write_it() -> None:
    Path("m.csv").write_bytes(
        b'\xef\xbb\xbfpath,note\r\na.jpg,"two\r\nlines, ""quoted"""\r\n\r\nb.jpg\r\nc.jpg,1,2\r\n'
    )
    found = rows("m.csv")
    assert [row.name for row in found] == ["a.jpg", "b.jpg", "m.csv#2"]
    assert [dict(row.columns) for row in found[:2]] == [{"note": 'two\r\nlines, "quoted"'}, {"note": None}]
    assert str(found[2].error) == "unreadable: row 3 has 3 cells, not 2"
    assert source("m.csv").count() == 3


@pytest.mark.parametrize("suffix", WRITERS)
def test_an_empty_file_is_named(suffix: str) -> None:
    Path(f"m{suffix}").touch()
    with pytest.raises(UsageError, match=f"m{suffix}"):
        source(f"m{suffix}")


@pytest.mark.parametrize("suffix", BY_SUFFIX)
def test_a_pointer_of_git_lfs_is_told(suffix: str) -> None:
    Path(f"m{suffix}").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 12345\n")
    with pytest.raises(UsageError, match=f"^m{suffix} is a git-lfs pointer") as error:
        source(f"m{suffix}")
    assert "git lfs pull" in error.value.hint


def test_parquet_without_rows_is_a_source_without_rows() -> None:
    pq.write_table(pa.table({"image": pa.array([], pa.string())}), "m.parquet")
    assert rows("m.parquet") == [] and source("m.parquet").count() == 0


def test_a_parquet_file_broken_in_the_middle_stops_the_run_and_says_where() -> None:
    table = pa.table({"image": [f"{number}.jpg" for number in range(1000)]})
    pq.write_table(table, "m.parquet", row_group_size=500, compression="none", use_dictionary=False)
    data = bytearray(Path("m.parquet").read_bytes())
    start = pq.read_metadata("m.parquet").row_group(1).column(0).data_page_offset
    data[start : start + 200] = b"\xff" * 200
    Path("m.parquet").write_bytes(data)
    with pytest.raises(Blip2Error, match=r"m\.parquet is damaged after row \d+: [^\n]+$"):
        rows("m.parquet")


def test_several_manifests_of_other_columns_share_a_schema() -> None:
    as_parquet("a.parquet", [{"image": "a.jpg", "n": 1, "only_a": True, "both": 1.5}])
    as_jsonl("b.jsonl", [{"image": "b.jpg", "n": 2.5, "both": "text"}])
    both = open_source(["a.parquet", "b.jsonl", "c/*.jpg"][:2], ColumnChoice())
    assert both.schema() == pa.schema([("n", pa.float64()), ("only_a", pa.bool_()), ("both", pa.string())])
    assert both.column_names() == ["n", "only_a", "both"]


def test_mixed_types_in_a_json_column_become_text() -> None:
    as_jsonl(
        "m.jsonl", [{"image": "a", "x": 1, "y": 1}, {"image": "a", "x": "one", "y": 2**70}, {"image": "a", "x": [1]}]
    )
    assert source("m.jsonl").schema() == pa.schema([("x", pa.string()), ("y", pa.string())])
