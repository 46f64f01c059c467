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


class Inference:
    """The columns' types as Arrow infers them from all records; a column of mixed types is a string, to hold JSON."""

    def __init__(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Read the records, of which only some are held at a time."""
        import pyarrow as pa

        self.fields: dict[str, pa.Field] = {}  # each without its name, which may be none that Arrow takes
        remaining = iter(records)
        while chunk := list(islice(remaining, ROWS_INFERRED)):
            for record in chunk:
                for name in record:
                    if name not in self.fields:
                        self.fields[name] = pa.field("", pa.null())
            for name, field in self.fields.items():
                self.fields[name] = _with_values(field, [record.get(name) for record in chunk])

    def schema(self, names: Iterable[str]) -> pa.Schema:
        """The types of these columns."""
        import pyarrow as pa

        unseen = pa.field("", pa.null())
        return pa.schema([self.fields.get(name, unseen).with_name(name) for name in names])


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
