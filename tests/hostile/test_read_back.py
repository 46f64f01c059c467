"""What a manifest carries is read back from both outputs as it stood there."""

import json
import math
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blip2cli.inputs import ColumnChoice, open_source
from blip2cli.outputs.arrow import schema_of, table_of
from blip2cli.outputs.jsonl import json_line
from blip2cli.outputs.layout import Layout, carried_names
from blip2cli.records import Column, Result

COLUMN = Column("caption", "string")
several = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
texts = st.text(max_size=12)
scalars = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats() | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
columns = st.sampled_from((st.booleans(), st.integers(-(2**62), 2**62), st.floats(allow_nan=False), texts, values))


def finite(value: Any) -> Any:
    """The value with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def written(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Any]:
    """A manifest's rows as JSON and Parquet hold them, and the schema of the latter."""
    source = open_source([str(path)], ColumnChoice())
    layout = Layout(carried_names(source.column_names(), (COLUMN,)), (COLUMN,), source.schema, {})
    results = [Result(row, (None,), row.error) for row in source.rows()]
    as_json = [json.loads(json_line(layout.record(result))) for result in results]
    file = BytesIO()
    table = table_of(results, layout, schema_of(layout))
    pq.write_table(table, file)
    return as_json, pq.read_table(file).to_pylist(), table.schema


@several
@given(kept=columns.flatmap(lambda kind: st.lists(kind, min_size=1, max_size=8)))
def test_json_values(tmp_path: Path, kept: list[Any]) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps({"image": "a.png", "kept": value}) + "\n" for value in kept))
    as_json, as_parquet, schema = written(path)
    assert [row["kept"] for row in as_json] == finite(kept)
    kinds = {type(value) for value in kept}
    if len(kinds) == 1 and kinds <= {bool, int, float, str}:
        assert [row["kept"] for row in as_parquet] == kept
    elif schema.field("kept").type == "string":
        both = zip((row["kept"] for row in as_parquet), kept, strict=True)
        for held, value in both:
            assert (
                held == value if value is None or isinstance(value, str) else finite(json.loads(held)) == finite(value)
            )


@several
@given(kept=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=8))
def test_cells_of_a_table(tmp_path: Path, kept: list[str]) -> None:
    path = tmp_path / "m.csv"
    quoted = ('"{}"'.format(value.replace('"', '""')) for value in kept)
    path.write_bytes("".join(f"a.png,{value}\r\n" for value in ("kept", *quoted)).replace("a.png", "image", 1).encode())
    as_json, as_parquet, _ = written(path)
    assert [row["kept"] for row in as_json] == [row["kept"] for row in as_parquet] == kept
