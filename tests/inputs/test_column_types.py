"""A column whose type differs between files: the type that holds all values exactly, or JSON, and never an end."""

import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from blip2cli.errors import UsageError
from blip2cli.inputs import ColumnChoice, open_source
from blip2cli.outputs.arrow import schema_of, table_of
from blip2cli.outputs.layout import Layout, carried_names
from blip2cli.records import Column, Result

COLUMN = Column("caption", "string")
BIG, SMALL = 1724500000000000123, 5
NS, US = pa.timestamp("ns"), pa.timestamp("us")
NEAR, FAR = dt.datetime(2024, 1, 2, 3, 4, 5), dt.datetime(3000, 1, 1)
DEEP = pa.list_(pa.struct([("n", pa.int64())]))
DEEP_FLOAT = pa.list_(pa.struct([("n", pa.float64()), ("m", pa.string())]))

PAIRS: dict[str, tuple[pa.Array, pa.Array, str]] = {
    "large integers, floats": (pa.array([BIG]), pa.array([1.5]), "string"),
    "small integers, floats": (pa.array([SMALL]), pa.array([1.5]), "double"),
    "integers of 32 bits, floats": (pa.array([SMALL], pa.int32()), pa.array([1.5]), "double"),
    "short integers, short floats": (pa.array([SMALL], pa.int8()), pa.array([1.5], pa.float32()), "float"),
    "unsigned, signed": (pa.array([2**63 + 5], pa.uint64()), pa.array([-1]), "string"),
    "short unsigned, signed": (pa.array([2**32 - 1], pa.uint32()), pa.array([-1], pa.int8()), "int64"),
    "decimals": (
        pa.array([Decimal("1.25")], pa.decimal128(10, 2)),
        pa.array([Decimal("-12345678901.5")], pa.decimal128(38, 1)),
        "decimal256(39, 2)",
    ),
    "decimals, integers": (pa.array([Decimal("1.25")], pa.decimal128(10, 2)), pa.array([BIG]), "decimal128(22, 2)"),
    "decimals, floats": (pa.array([Decimal("1.25")], pa.decimal128(10, 2)), pa.array([1.5]), "string"),
    "near times": (pa.array([NEAR], US), pa.array([NEAR], NS), "timestamp[ns]"),
    "far times": (pa.array([FAR], US), pa.array([NEAR], NS), "string"),
    "seconds": (pa.array([FAR], pa.timestamp("s")), pa.array([FAR], US), "timestamp[us]"),
    "two zones": (pa.array([NEAR], pa.timestamp("us", "UTC")), pa.array([NEAR], US), "string"),
    "times, days": (pa.array([NEAR], US), pa.array([NEAR.date()]), "string"),
    "days": (pa.array([NEAR.date()]), pa.array([FAR.date()], pa.date64()), "date"),
    "lists": (pa.array([[BIG]]), pa.array([[1.5]]), "string"),
    "lists of small": (pa.array([[SMALL]]), pa.array([[1.5, None]]), "list<"),
    "fixed lists": (pa.array([[1, 2]], pa.list_(pa.int8(), 2)), pa.array([[300, 2]], pa.list_(pa.int16(), 2)), "fixed"),
    "deep": (pa.array([[{"n": SMALL}]], DEEP), pa.array([[{"n": 1.5, "m": "x"}]], DEEP_FLOAT), "list<"),
    "deep and large": (pa.array([[{"n": BIG}]], DEEP), pa.array([[{"n": 1.5, "m": "x"}]], DEEP_FLOAT), "string"),
    "objects": (pa.array([{"a": 1}]), pa.array([{"b": "x"}]), "struct<"),
    "objects, lists": (pa.array([{"a": 1}]), pa.array([[1]]), "string"),
    "dictionary, text": (pa.array(["a"]).dictionary_encode(), pa.array(["b"]), "string"),
    "large text": (pa.array(["a"], pa.large_string()), pa.array(["b"]), "large_string"),
    "bytes": (pa.array([b"a"]), pa.array([b"bc"], pa.binary(2)), "binary"),
    "bytes, text": (pa.array([b"a"]), pa.array(["b"]), "string"),
    "nulls": (pa.nulls(1), pa.array([BIG]), "int64"),
    "booleans, integers": (pa.array([True]), pa.array([1]), "string"),
    "time of day": (pa.array([1], pa.time32("s")), pa.array([1], pa.time64("us")), "time64[us]"),
    "spans": (pa.array([1], pa.duration("s")), pa.array([1], pa.duration("us")), "duration[us]"),
    "map": (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), pa.array([{"k": 1}]), "string"),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def as_parquet(name: str, column: pa.Array) -> None:
    pq.write_table(pa.table({"image": ["a.png"] * len(column), "x": column}), name)


def as_arrow(name: str, column: pa.Array) -> None:
    feather.write_feather(pa.table({"image": ["a.png"] * len(column), "x": column}), name, "uncompressed")


def put(*names: str) -> tuple[pa.Array, list[str | None]]:
    """The column x of what a run would write of these inputs, and the errors; row by row, as batches may be cut."""
    source = open_source(names, ColumnChoice())
    layout = Layout(carried_names(source.column_names(), (COLUMN,)), (COLUMN,), source.schema, {})
    schema = schema_of(layout)
    tables = [table_of([Result(row, ("a caption",), row.error)], layout, schema) for row in source.rows()]
    pq.write_table(pa.concat_tables(tables), "o.parquet")
    written = pq.read_table("o.parquet")
    return written["x"].combine_chunks(), written["error"].to_pylist()


def same(held: pa.Scalar, value: pa.Scalar) -> bool:
    """Whether a value is as it was: equal, or equal as the text that JSON has for it."""
    if held.type == value.type or not pa.types.is_string(held.type):
        one, other = held.as_py(), value.as_py()
        if isinstance(other, dict):
            return bool({**dict.fromkeys(one), **other} == one)
        if isinstance(other, list) and other and isinstance(other[0], dict):
            return [{**dict.fromkeys(a), **b} for a, b in zip(one, other, strict=True)] == one
        return bool(one == other)
    text, known = held.as_py(), value.as_py()
    if isinstance(known, (dict, list, bool, int, float)):
        return bool(json.loads(text) == json.loads(json.dumps(known)))
    if isinstance(known, bytes):
        return bool(text == "YQ==")
    return str(known) in (text, text.replace("T", " ")) or str(known) in text.replace("T", " ")


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("written", [as_parquet, as_arrow])
@pytest.mark.parametrize("name", PAIRS)
def test_no_value_is_lost_where_types_differ(name: str, written: Callable[..., None], turned: bool) -> None:
    one, other, kind = PAIRS[name]
    columns = (other, one) if turned else (one, other)
    suffix = "parquet" if written is as_parquet else "arrow"
    for number, column in enumerate(columns):
        written(f"{number}.{suffix}", column)
    held, errors = put(f"0.{suffix}", f"1.{suffix}")
    assert errors == [None, None]
    assert str(held.type).startswith(kind)
    assert all(same(held[at], column[0]) for at, column in enumerate(columns)), held


def test_json_lines_are_read_before_their_types_are_told() -> None:
    Path("a.jsonl").write_text('{"image": "a.png", "x": 1724500000000000123}\n')
    Path("b.jsonl").write_text('{"image": "a.png", "x": 1.5}\n')
    as_parquet("c.parquet", pa.array([2.5]))
    assert put("a.jsonl", "b.jsonl")[0].to_pylist() == ["1724500000000000123", "1.5"]
    assert put("a.jsonl", "c.parquet")[0].to_pylist() == ["1724500000000000123", "2.5"]
    Path("a.jsonl").write_text('{"image": "a.png", "x": [{"n": 1}]}\n{"image": "a.png", "x": []}\n')
    Path("b.jsonl").write_text('{"image": "a.png", "x": [{"n": 1.5}]}\n')
    assert put("a.jsonl", "b.jsonl")[0].to_pylist() == [[{"n": 1.0}], [], [{"n": 1.5}]]


def test_objects_of_many_keys_are_json() -> None:
    lines = [json.dumps({"image": "a.png", "x": [{f"{row}-{key}": 1 for key in range(30)}]}) for row in range(50)]
    Path("a.jsonl").write_text("\n".join(lines))
    held, _ = put("a.jsonl")
    assert held.type == pa.string() and json.loads(held[1].as_py())[0]["1-0"] == 1


KINDS: dict[str, pa.Array] = {
    "months": pa.array([pa.MonthDayNano([1, 2, 3]), None]),
    "runs": pa.RunEndEncodedArray.from_arrays([1, 2], ["a", None]),
    "union": pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, None]), pa.array(["", "x"])]),
    "short dictionary": pa.array(["a", None]).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string())),
    "listed dictionary": pa.ListArray.from_arrays([0, 1, 2], pa.array(["a", "b"]).dictionary_encode()),
    "far seconds": pa.array([2**60, None], pa.timestamp("s")),
}


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("name", KINDS)
def test_types_that_a_format_has_not_do_not_end_a_run(
    typed: Callable[..., Any], name: str, suffix: str, red_circle: str
) -> None:
    column = KINDS[name]
    table = pa.table({"image": [red_circle] * 2, "x": column})
    with pa.ipc.new_file("m.arrow", table.schema) as file:
        file.write_table(table)
    code = typed("caption", "m.arrow", "--out", f"o.{suffix}", "--batch-size", 1).code
    read = pq.read_table("o.parquet") if suffix == "parquet" else feather.read_table("o.arrow")
    lost = [value for value, before in zip(read["x"], column, strict=True) if before.is_valid and not value.is_valid]
    assert len(read) == 2 and read["error"].null_count == 2 - len(lost)
    assert code == (3 if lost else 0)
    assert bool(lost) == (name == "far seconds" and suffix == "parquet")


@pytest.fixture
def red_circle() -> str:
    return str(Path(__file__).parents[2] / "docs" / "examples" / "red-circle.png")


def test_dictionaries_that_differ_between_commits_are_written_to_arrow(
    typed: Callable[..., Any], red_circle: str
) -> None:
    for name, word in (("a", "one"), ("b", "two")):
        column = pa.array([word]).dictionary_encode()
        pq.write_table(pa.table({"image": [red_circle], "x": column}), f"{name}.parquet")
    ran = typed("caption", "a.parquet", "b.parquet", "--out", "o.arrow", "--commit-every", 0, "--batch-size", 1)
    assert ran.code == 0 and feather.read_table("o.arrow")["x"].to_pylist() == ["one", "two"]


def test_a_value_that_does_not_fit_is_an_error_of_its_row() -> None:
    as_parquet("a.parquet", pa.array([1, 2, 3]))
    source = open_source(["a.parquet"], ColumnChoice())
    layout = Layout({"x": "x"}, (COLUMN,), lambda: pa.schema([("x", pa.int8())]), {})
    results = [Result(row, ("a caption",)) for row in source.rows()]
    changed = Result(results[1].row.__class__(1, "a.png", None, {"x": 2**40}), ("a caption",))
    table = table_of([results[0], changed, results[2]], layout, schema_of(layout))
    assert table["x"].to_pylist() == [1, None, 3]
    assert table["error"].to_pylist() == [None, "unsupported: the value in column x does not fit its type, int8", None]
    assert layout.late == {"unsupported": 1}


@pytest.mark.parametrize("value", ["\ud83d", ["\udc00"], {"\ud83d": 1}, [{"a": {"\ud83d": ["\udc00"]}}]])
def test_halves_of_surrogate_pairs_are_kept_as_escapes(value: Any) -> None:
    lines = [{"image": "a.png", "x": value}, {"image": "b.png", "x": 1}]
    Path("a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    held, errors = put("a.jsonl")
    assert held.type == pa.string() and "\\ud" in held[0].as_py() and held[1].as_py() == "1"
    assert not any(errors)


def test_a_column_whose_name_is_half_a_surrogate_pair_is_refused() -> None:
    Path("a.jsonl").write_text('{"image": "a.png", "\\ud83d": 1}\n')
    with pytest.raises(UsageError, match="not Unicode"):
        open_source(["a.jsonl"], ColumnChoice())


@pytest.mark.parametrize("levels", [33, 100, 150])
@pytest.mark.parametrize("make", [lambda x: [x], lambda x: {"a": x}], ids=["lists", "objects"])
def test_values_nested_deeply_are_json(levels: int, make: Callable[[Any], Any]) -> None:
    value: Any = 1
    for _ in range(levels):
        value = make(value)
    Path("a.jsonl").write_text(json.dumps({"image": "a.png", "x": value}) + "\n")
    held, errors = put("a.jsonl")
    assert json.loads(held[0].as_py()) == value and not any(errors)


def test_lines_nested_more_deeply_are_error_rows() -> None:
    lines = ["{}", '{"image": "a.png", "x": "[[" }'] + [
        '{"image": "a.png", "x": ' + "[" * deep + "]" * deep + "}" for deep in (150, 250, 900, 100_000)
    ]
    Path("a.jsonl").write_text("\n".join(lines))
    found = list(open_source(["a.jsonl"], ColumnChoice()).rows())
    assert [bool(row.error) for row in found] == [True, False, False, True, True, True]
    assert str(found[3].error) == "unreadable: line 4 is nested more than 200 levels deep"


def test_deep_types_of_parquet_are_json_in_arrow(red_circle: str, typed: Callable[..., Any]) -> None:
    value: Any = 1
    for _ in range(80):
        value = {"a": value}
    pq.write_table(pa.table({"image": [red_circle], "x": [value]}), "a.parquet")
    assert typed("caption", "a.parquet", "--out", "o.arrow").code == 0
    assert json.loads(feather.read_table("o.arrow")["x"][0].as_py()) == value


def test_fields_of_one_name_are_pairs_in_json(red_circle: str, typed: Callable[..., Any]) -> None:
    twice = pa.StructArray.from_arrays([pa.array([1]), pa.array(["b"])], names=["a", "a"])
    pq.write_table(pa.table({"image": [red_circle], "x": twice}), "a.parquet")
    (row,) = typed("caption", "a.parquet").rows
    assert row["x"] == [["a", 1], ["a", "b"]]
