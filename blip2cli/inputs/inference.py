"""Types of columns, inferred from records of JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from blip2cli.inputs.fields import MOST_FIELDS, field_of, merge_fields

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_INFERRED = 4096
"""Records whose types are inferred together."""


def infer_schema(names: Iterable[str], records: Iterable[Mapping[str, Any]]) -> pa.Schema:
    """The columns' types as Arrow infers them from all records; a column of mixed types is a string, to hold JSON."""
    import pyarrow as pa

    fields: dict[str, pa.Field] = {name: pa.field(name, pa.null()) for name in names}
    remaining = iter(records)
    while chunk := list(islice(remaining, ROWS_INFERRED)):
        for name, field in fields.items():
            fields[name] = _with_values(field, [record.get(name) for record in chunk])
    return pa.schema(list(fields.values()))


def _with_values(field: pa.Field, values: list[Any]) -> pa.Field:
    """The field that also holds these values; a string, to hold JSON, where no type does."""
    import pyarrow as pa

    text = pa.field(field.name, pa.string())
    if len(_keys(values, set())) > MOST_FIELDS:
        return text
    try:
        return merge_fields(field, field_of(field.name, pa.array(values)))
    except (pa.ArrowException, OverflowError):
        return text


def _keys(values: Iterable[Any], keys: set[str]) -> set[str]:
    """The keys of objects in JSON values, nested ones too; added to those that are known."""
    for value in values:
        if isinstance(value, dict):
            keys.update(value)
            _keys(value.values(), keys)
        elif isinstance(value, list):
            _keys(value, keys)
    return keys
