"""Results as Arrow tables: the schema of an output, and rows put into it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from blip2cli.outputs import Layout
from blip2cli.records import Column, Result

METADATA_KEY = b"blip2"
"""The schema metadata under which the run's settings stand, as JSON."""


def schema_of(layout: Layout) -> pa.Schema:
    """image, the carried columns with their types, the task's columns, error; the settings as metadata."""
    carried = layout.schema()
    fields = [pa.field("image", pa.string())]
    fields += [pa.field(shown, _storable(carried.field(name).type)) for name, shown in layout.carried.items()]
    fields += [pa.field(column.name, column_type(column)) for column in layout.columns]
    fields.append(pa.field("error", pa.string()))
    return pa.schema(fields, metadata={METADATA_KEY: json.dumps(dict(layout.metadata)).encode()})


def _storable(kind: pa.DataType) -> pa.DataType:
    """A carried column's type; a string, to hold JSON, where Parquet has none for it (objects without any key)."""
    return pa.string() if _holds_empty_struct(kind) else kind


def _holds_empty_struct(kind: pa.DataType) -> bool:
    if not pa.types.is_nested(kind):
        return False
    inner = [kind.field(at).type for at in range(kind.num_fields)]
    return (pa.types.is_struct(kind) and not inner) or any(map(_holds_empty_struct, inner))


def column_type(column: Column) -> pa.DataType:
    """The Arrow type of a task's column."""
    if column.kind == "string":
        return pa.string()
    if column.kind == "strings":
        return pa.list_(pa.string())
    if column.kind == "integer":
        return pa.int64()
    if column.kind == "number":
        return pa.float64()
    if column.kind == "numbers":
        return pa.list_(pa.float64())
    return pa.fixed_shape_tensor(pa.float32() if column.dtype == "fp32" else pa.float16(), column.shape)


def table_of(results: Sequence[Result], layout: Layout, schema: pa.Schema) -> pa.Table:
    """The results as a table of that schema."""
    records = [layout.record(result) for result in results]
    arrays = [_array([record[field.name] for record in records], field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


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
    if pa.types.is_string(kind):
        values = [value if value is None or isinstance(value, pa.Scalar) else _text(value) for value in values]
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
    """Text as it is, save for halves of surrogate pairs, which JSON can hold; anything else as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "backslashreplace").decode()
