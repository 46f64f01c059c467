"""A manifest's columns come out of Parquet as they went in, whatever their type."""

import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import Typed

IMAGE = Path(__file__).parents[2] / "docs" / "examples" / "red-circle.png"
FAR = 2**60
"""Microseconds since 1970 that no Python datetime holds."""

NANOSECONDS = 1_234_567_890_123_456_789

COLUMNS: dict[str, Any] = {
    "int8": pa.array([1, None, -3], pa.int8()),
    "uint64": pa.array([1, None, 2**64 - 1], pa.uint64()),
    "half": pa.array(np.array([1, 2, 3], dtype=np.float16)),
    "bool": pa.array([True, None, False]),
    "decimal": pa.array([Decimal("1.23"), None, Decimal("-9.99")], pa.decimal128(10, 2)),
    "us": pa.array([dt.datetime(2020, 1, 1, 1, 2, 3, 4), None, dt.datetime(1900, 1, 1)], pa.timestamp("us")),
    "zoned": pa.array([0, None, 1], pa.timestamp("us", "Europe/Berlin")),
    "ns": pa.array([NANOSECONDS, None, -1], pa.timestamp("ns")),
    "far": pa.array([FAR, None, -FAR], pa.timestamp("us")),
    "date": pa.array([dt.date(2020, 1, 1), None, dt.date(1, 1, 1)]),
    "time": pa.array([1, None, 3], pa.time64("ns")),
    "duration": pa.array([1, None, 3], pa.duration("ns")),
    "dictionary": pa.array(["a", None, "b"]).dictionary_encode(),
    "large_string": pa.array(["a", None, "b"], pa.large_string()),
    "binary": pa.array([b"a", None, b"\xff"]),
    "list": pa.array([[1, None], None, []], pa.list_(pa.int16())),
    "fixed_list": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.float32(), 2)),
    "struct": pa.array(
        [{"x": 1, "y": ["a"], "t": FAR}, None, {"x": None, "y": None, "t": 0}],
        pa.struct([("x", pa.int64()), ("y", pa.list_(pa.string())), ("t", pa.timestamp("us"))]),
    ),
    "list_ns": pa.array([[NANOSECONDS], None, []], pa.list_(pa.timestamp("ns"))),
    "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
    "null": pa.nulls(3),
    "tensor": pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.int8(), (2, 1)), pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2))
    ),
}


@pytest.fixture
def manifest(tmp_path: Path) -> pa.Table:
    """A table of those columns as it is read from m.parquet."""
    pq.write_table(pa.table({"image": [str(IMAGE)] * 3, **COLUMNS}), tmp_path / "m.parquet")
    return pq.read_table(tmp_path / "m.parquet")


def test_types_and_values_are_kept_in_parquet(typed: Callable[..., Typed], manifest: pa.Table) -> None:
    assert typed("caption", "m.parquet", "--out", "o.parquet").code == 0
    written = pq.read_table("o.parquet")
    for name in COLUMNS:
        assert written.schema.field(name).type == manifest.schema.field(name).type, name
        assert written[name].combine_chunks().equals(manifest[name].combine_chunks()), name


def test_values_are_readable_in_json(typed: Callable[..., Typed], manifest: pa.Table) -> None:
    rows = typed("caption", "m.parquet").rows
    assert all(rows[1][name] is None for name in COLUMNS if name != "half")
    expected = {
        "uint64": 1,
        "decimal": "1.23",
        "us": "2020-01-01T01:02:03.000004",
        "zoned": "1970-01-01T01:00:00+01:00",
        "ns": "2009-02-13 23:31:30.123456789",
        "time": "00:00:00.000000001",
        "dictionary": "a",
        "binary": "YQ==",
        "list": [1, None],
        "tensor": [[1], [2]],
    }
    assert {name: rows[0][name] for name in expected} == expected
    assert (rows[0]["struct"]["x"], rows[0]["struct"]["y"]) == (1, ["a"])


def test_columns_that_only_some_inputs_have_are_null_elsewhere(typed: Callable[..., Typed]) -> None:
    schema = pa.schema([("image", pa.string()), pa.field("id", pa.int32(), nullable=False)])
    pq.write_table(pa.table({"image": [str(IMAGE)], "id": [5]}, schema=schema), "a.parquet")
    Path("b.csv").write_text(f"image,note\n{IMAGE},x\n")
    Path("c.jsonl").write_text(json.dumps({"image": str(IMAGE), "id": 2.5, "note": 1}) + "\n\n{\n")
    assert typed("caption", "a.parquet", "b.csv", IMAGE, "c.jsonl", "--out", "o.parquet").code == 3
    written = pq.read_table("o.parquet")
    assert written.schema.names == ["image", "id", "note", "caption", "error"]
    assert written["id"].to_pylist() == [5, None, None, 2.5, None]
    assert written["note"].to_pylist() == [None, "x", None, "1", None]
    assert [bool(error) for error in written["error"].to_pylist()] == [False, False, False, False, True]


def test_json_columns_of_mixed_types_become_text_in_parquet_and_stay_in_jsonl(typed: Callable[..., Typed]) -> None:
    values = [1, "one", [1, {"a": None}], None, "\ud800"]
    lines = [json.dumps({"image": str(IMAGE), "x": value}) for value in values]
    Path("m.jsonl").write_text("\n".join(lines))
    assert typed("caption", "m.jsonl", "--out", "o.parquet").code == 0
    assert pq.read_table("o.parquet")["x"].to_pylist() == ["1", "one", '[1, {"a": null}]', None, "\\ud800"]
    assert [row["x"] for row in typed("caption", "m.jsonl").rows] == values
