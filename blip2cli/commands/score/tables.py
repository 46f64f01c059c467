"""Results and references as plain records, from any kind of file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from blip2cli.inputs import ColumnChoice, open_source
from blip2cli.inputs.cells import json_texts

if TYPE_CHECKING:
    from blip2cli.inputs import Source

IMAGE = "image"
"""The field that names a record's image."""

TABLES = ColumnChoice(image_required=False)
"""How tables are read: they need not be about images."""


def open_tables(names: Sequence[str]) -> tuple[Source, ...]:
    """The tables that files, folders of shards and globs hold. Raises UsageError."""
    return open_source(names, TABLES).parts


def texts_in(cell: Any) -> list[str]:
    """The texts of a cell: itself, the entries of a list (in CSV: of JSON), or their `answer` if they are objects.

    NaN is how pandas writes that there is none.
    """
    if cell is None or cell != cell:
        return []
    if isinstance(cell, str):
        listed = json_texts(cell)
        return [cell] if listed is None else listed
    if isinstance(cell, dict):
        cell = cell.get("answer")
        return [] if cell is None or cell != cell else [str(cell)]
    if isinstance(cell, (list, tuple)):
        return [text for entry in _flat(cell) for text in ([entry] if isinstance(entry, str) else texts_in(entry))]
    return [str(cell)]


def _flat(cell: Sequence[Any]) -> Iterator[Any]:
    """The entries of lists within lists, however deep."""
    waiting = list(reversed(cell))
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, (list, tuple)):
            waiting.extend(reversed(entry))
        else:
            yield entry


def field(record: Mapping[str, Any], name: str) -> Any:
    """The value of a column, or of a field within it, with a dot between their names."""
    if name in record or "." not in name:
        return record.get(name)
    column, _, rest = name.partition(".")
    inner = record.get(column)
    return field(inner, rest) if isinstance(inner, dict) else None


def identity(value: Any) -> str | None:
    """An id in a form to compare: 9, 9.0 and "9" are the same."""
    if value is None or value == "":
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()
