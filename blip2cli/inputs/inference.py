"""Types of columns, inferred from records of JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from blip2cli.inputs.fields import MOST_FIELDS, MOST_LEVELS, field_of, merge_fields

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
    if not _has_a_type(values):
        return text
    try:
        return merge_fields(field, field_of(field.name, pa.array(values)))
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):  # the last for halves of surrogate pairs
        return text


def _has_a_type(values: Iterable[Any]) -> bool:
    """Whether JSON values may have a type of their own: few keys in all, and few levels of nesting."""
    keys: set[str] = set()
    level = [value for value in values if isinstance(value, (dict, list))]
    for _ in range(MOST_LEVELS):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                keys.update(value)
                inner += value.values()
            else:
                inner += value
        level = [value for value in inner if isinstance(value, (dict, list))]
        if not level:
            return len(keys) <= MOST_FIELDS
    return False
