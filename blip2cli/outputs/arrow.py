"""Results as Arrow tables: the schema of an output, and rows put into it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blip2cli.outputs.jsonl import plain
from blip2cli.outputs.layout import Layout
from blip2cli.records import Column, Result, RowError
from blip2cli.settings.metadata import as_metadata

MOST_WRITTEN_LEVELS = 48
"""Levels of lists and structs within each other that are written; Arrow's files hold 64."""

UNFIT = (pa.ArrowException, OverflowError, ValueError, TypeError)
"""What Arrow raises for a value that a type does not hold."""


def schema_of(layout: Layout, parquet: bool = True) -> pa.Schema:
    """image, the carried columns with their types, the task's columns, error; the settings as metadata.

    With `parquet` types are as Parquet has them; else none is dictionary-encoded: Arrow's files hold one dictionary.
    """
    carried = layout.schema()
    fields = [pa.field("image", pa.string())]
    for name, shown in layout.carried.items():
        fields.append(pa.field(shown, _storable(carried.field(name).type, parquet)))
    fields += [pa.field(column.name, column_type(column)) for column in layout.columns]
    fields.append(pa.field("error", pa.string()))
    return pa.schema(fields, metadata=as_metadata(layout.metadata))


def _storable(kind: pa.DataType, parquet: bool) -> pa.DataType:
    """A carried column's type; a string, to hold JSON, where Parquet has none for it (objects without any key).

    So too for one of more levels within each other than Arrow's files hold.
    """
    if not _is_within(kind, MOST_WRITTEN_LEVELS):
        return pa.string()
    plain = _plain(kind, parquet)
    try:
        pq.ParquetWriter(BytesIO(), pa.schema([("column", plain)])).close()
    except UNFIT:
        return pa.string()
    return plain


def _is_within(kind: pa.DataType, levels: int) -> bool:
    """Whether types stand within each other over so many levels at most."""
    if not pa.types.is_nested(kind):
        return True
    return levels > 0 and all(_is_within(kind.field(at).type, levels - 1) for at in range(kind.num_fields))


def _plain(kind: pa.DataType, parquet: bool) -> pa.DataType:
    """The type without metadata of its fields, and with room in its dictionaries for more values than it came with."""
    if str(kind).startswith("run_end_encoded<"):
        return _plain(kind.value_type, parquet)
    if pa.types.is_dictionary(kind):
        values = _plain(kind.value_type, parquet)
        return pa.dictionary(pa.int32(), values, kind.ordered) if parquet else values
    if pa.types.is_map(kind):
        return pa.map_(_plain(kind.key_type, parquet), _plain(kind.item_type, parquet), kind.keys_sorted)
    if parquet and pa.types.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    if not pa.types.is_nested(kind):
        return kind
    inner = []
    for field in (kind.field(at) for at in range(kind.num_fields)):
        inner.append(pa.field(field.name, _plain(field.type, parquet), field.nullable))
    if pa.types.is_struct(kind):
        return pa.struct(inner)
    if pa.types.is_list(kind):
        return pa.list_(inner[0])
    if pa.types.is_large_list(kind):
        return pa.large_list(inner[0])
    return pa.list_(inner[0], kind.list_size) if pa.types.is_fixed_size_list(kind) else kind


def column_type(column: Column) -> pa.DataType:
    """The Arrow type of a task's column."""
    if column.kind == "string":
        return pa.string()
    if column.kind == "strings":
        return pa.list_(pa.string())
    if column.kind == "boolean":
        return pa.bool_()
    if column.kind == "integer":
        return pa.int64()
    if column.kind == "number":
        return pa.float64()
    if column.kind == "numbers":
        return pa.list_(pa.float64())
    return pa.fixed_shape_tensor(pa.float32() if column.dtype == "fp32" else pa.float16(), column.shape)


def table_of(results: Sequence[Result], layout: Layout, schema: pa.Schema) -> pa.Table:
    """The results as a table of that schema, in which `error` is the last column.

    A value that its column does not hold is null, with an error in its row: an input may be other than it said.
    """
    records = [layout.record(result) for result in results]
    arrays = [_column(records, field, layout) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _column(records: Sequence[dict[str, Any]], field: pa.Field, layout: Layout) -> pa.Array:
    try:
        return _array([record[field.name] for record in records], field.type)
    except UNFIT:
        return _array([_fitted(record, field, layout) for record in records], field.type)


def _fitted(record: dict[str, Any], field: pa.Field, layout: Layout) -> Any:
    """A value as its column holds it; None, and the row's error, where it cannot."""
    value = record[field.name]
    try:
        if isinstance(value, pa.Scalar):
            value = value.cast(field.type)
        _array([value], field.type)
    except UNFIT:
        fault = RowError("unsupported", f"the value in column {field.name} does not fit its type, {field.type}")
        record["error"] = record["error"] or str(layout.failed(fault))
        return None
    return value


def records_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """A table's rows by the names of their columns: tensors as arrays, carried values as Arrow's own scalars."""
    for values in zip(*(map(_value, column) for column in table.columns), strict=True):
        yield dict(zip(table.column_names, values, strict=True))


def _value(scalar: pa.Scalar) -> Any:
    if not scalar.is_valid:
        return None
    if isinstance(scalar.type, pa.FixedShapeTensorType):
        return scalar.to_numpy()
    return scalar if pa.types.is_temporal(scalar.type) else scalar.as_py()


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if isinstance(kind, pa.FixedShapeTensorType):
        return pa.ExtensionArray.from_storage(kind, _fixed_lists(values, kind))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        values = [None if value is None else _text(value) for value in values]
    return pa.array(values, type=kind)


def _fixed_lists(values: list[Any], kind: pa.FixedShapeTensorType) -> pa.Array:
    storage = kind.storage_type
    flat = np.zeros((len(values), storage.list_size), dtype=storage.value_type.to_pandas_dtype())
    for at, value in enumerate(values):
        if value is not None:
            flat[at] = value.reshape(-1)
    missing = pa.array([value is None for value in values])
    return pa.FixedSizeListArray.from_arrays(flat.reshape(-1), type=storage, mask=missing)


def _text(value: Any) -> str:
    """Text as it is, save for halves of surrogate pairs, which JSON can hold; anything else as JSON.

    What JSON has no word for but a text (times, decimals, bytes) is that text, without quotation marks.
    """
    text = value
    if not isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False, default=plain)
        text = json.loads(text) if text.startswith('"') else text
    return text.encode("utf-8", "backslashreplace").decode()
