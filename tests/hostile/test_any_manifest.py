"""Manifests of any content give rows or two lines; every row can be written, and read back as it was."""

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blip2cli.errors import Blip2Error, UsageError
from blip2cli.inputs import ColumnChoice, open_source
from blip2cli.outputs.arrow import schema_of, table_of
from blip2cli.outputs.jsonl import json_line
from blip2cli.outputs.layout import Layout, carried_names
from blip2cli.records import Column, Result
from tests.conftest import Typed

COLUMN = Column("caption", "string")
several = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

words = st.text(max_size=20)
cells = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
records = st.dictionaries(st.sampled_from(("image", "id", "error", "caption", "note", "")) | words, cells, max_size=5)
lines = st.lists(st.one_of(records.map(json.dumps), words, st.just('{"image": "a.png"')), max_size=12)


def check(path: Path) -> int:
    """Read a manifest and write its rows in both formats; gives their number. Raises Blip2Error, and nothing else."""
    source = open_source([str(path)], ColumnChoice())
    rows = list(source.rows())
    assert source.count() == len(rows)
    assert [row.index for row in rows] == list(range(len(rows)))
    assert [
        row.name for row in source.rows(len(rows) // 2, rows[len(rows) // 2 - 1].name if len(rows) > 1 else None)
    ] == [row.name for row in rows[len(rows) // 2 :]]
    layout = Layout(carried_names(source.column_names(), (COLUMN,)), (COLUMN,), source.schema, {})
    results = [Result(row, ("a caption",), row.error) for row in rows]
    for result in results:
        read = json.loads(json_line(layout.record(result)))
        assert list(read) == ["image", *layout.carried.values(), "caption", "error"]
    table = table_of(results, layout, schema_of(layout))
    file = BytesIO()
    pq.write_table(table, file)
    assert pq.read_table(file)["image"].to_pylist() == [row.name for row in rows]
    return len(rows)


def read_or_refuse(path: Path) -> None:
    try:
        check(path)
    except Blip2Error as error:
        assert error.message and "\n" not in error.message + error.hint


@several
@given(lines=lines, end=st.sampled_from(("\n", "\r\n")), start=st.sampled_from(("", "\ufeff", "\n\n")))
def test_json_lines_of_any_content(tmp_path: Path, lines: list[str], end: str, start: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes((start + end.join(lines)).encode("utf-8", "surrogatepass"))
    read_or_refuse(path)


@several
@given(rows=st.lists(st.lists(words, max_size=4), max_size=8), suffix=st.sampled_from(("csv", "tsv")))
def test_tables_of_text_of_any_content(tmp_path: Path, rows: list[list[str]], suffix: str) -> None:
    path = tmp_path / f"m.{suffix}"
    between = "," if suffix == "csv" else "\t"
    body = "\r\n".join(between.join(row) for row in [["image", "id", "note", ""], *rows])
    path.write_bytes(body.encode("utf-8", "surrogatepass"))
    read_or_refuse(path)


@several
@given(data=st.binary(max_size=400), suffix=st.sampled_from(("jsonl", "csv", "tsv", "parquet")))
def test_manifests_of_random_bytes(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"m.{suffix}"
    path.write_bytes(data)
    read_or_refuse(path)


TABLES = {
    "nothing": pa.table({"image": pa.array([], pa.string())}),
    "nulls": pa.table({"image": pa.nulls(3), "id": pa.nulls(3, pa.int8())}),
    "numbers": pa.table({"image": [1, 2, 3]}),
    "nested": pa.table({"image": ["a.png", None], "note": [{"a": [1, None]}, None]}),
    "dates": pa.table(
        {
            "image": ["a.png"] * 3,
            "day": pa.array([-800_000, 0, None], pa.date32()),
            "time": pa.array([2**62, 1, None], pa.timestamp("ns", "UTC")),
            "span": pa.array([2**60, -1, None], pa.duration("us")),
        }
    ),
    "structs": pa.table({"image": [{"bytes": b"x", "path": None}, {"bytes": None, "path": "a.png"}, None]}),
    "lists": pa.table({"image": [["a.png"], []]}),
    "dictionary": pa.table({"image": pa.array(["a.png", "b.png", "a.png"]).dictionary_encode()}),
    "large": pa.table(
        {"image": pa.array(["a.png"], pa.large_string()), "blob": pa.array([b"\xff"], pa.large_binary())}
    ),
    "tensors": pa.table(
        {"image": ["a.png"], "features": pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((1, 2, 2)))}
    ),
    "decimals": pa.table({"image": ["a.png"], "price": pa.array([1]).cast(pa.decimal128(38, 5))}),
    "map": pa.table({"image": ["a.png"], "m": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))}),
}


@pytest.mark.parametrize("name", TABLES)
def test_parquet_of_every_type(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(TABLES[name], path)
    assert check(path) == len(TABLES[name])


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_columns_of_one_name_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m.{suffix}"
    if suffix == "csv":
        path.write_text("image,id,id\na.png,1,2\n")
    else:
        arrays = [pa.array(["a.png"]), pa.array([1]), pa.array([2])]
        pq.write_table(pa.Table.from_arrays(arrays, ["image", "id", "id"]), path)
    with pytest.raises(UsageError, match="has several columns named 'id'"):
        check(path)


@several
@given(cut=st.floats(0, 1), at=st.floats(0, 1), value=st.integers(0, 255), truncated=st.booleans())
def test_parquet_that_was_tampered_with(tmp_path: Path, cut: float, at: float, value: int, truncated: bool) -> None:
    path = tmp_path / "m.parquet"
    file = BytesIO()
    pq.write_table(pa.table({"image": [f"{n}.png" for n in range(50)], "id": range(50)}), file, row_group_size=20)
    data = bytearray(file.getvalue())
    if truncated:
        data = data[: int(cut * len(data))]
    else:
        data[int(at * (len(data) - 1))] = value
    path.write_bytes(data)
    read_or_refuse(path)


def test_a_cell_of_ten_megabytes_is_carried(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"image": "a.png", "note": "x" * 10_000_000}) + "\n")
    assert check(path) == 1
    path = tmp_path / "m.csv"
    path.write_text("image,note\na.png," + "x" * 10_000_000 + "\n")
    assert check(path) == 1


def test_a_cell_beyond_all_bounds_is_refused_or_a_row(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("image,note\na.png," + "x" * 20_000_000 + "\n")
    read_or_refuse(path)


@pytest.mark.parametrize(
    "cell",
    ["../../out.jsonl", "out.jsonl", ".out.jsonl.blip2", "/dev/zero", "/proc/self/mem", "a\0b", "-", "x" * 5000],
)
def test_a_manifest_cannot_make_the_tool_write_or_hang(typed: Callable[..., Typed], cell: str) -> None:
    Path("m.jsonl").write_text(json.dumps({"image": cell, "error": "mine", "caption": "mine"}) + "\n")
    ran = typed("caption", "m.jsonl", "--out", "out.jsonl")
    assert ran.code == 3 and "Traceback" not in ran.err
    row: dict[str, Any] = json.loads(Path("out.jsonl").read_text())
    assert row["error"] and (row["input_error"], row["input_caption"]) == ("mine", "mine")
    assert {path.name for path in Path().iterdir()} == {"m.jsonl", "out.jsonl", ".out.jsonl.blip2"}
