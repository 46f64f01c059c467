"""The columns of an output, and a result as a record of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blip2cli.records import Column, Result, RowError

if TYPE_CHECKING:
    import pyarrow as pa

RESERVED = ("image", "error")


@dataclass(frozen=True)
class Layout:
    """The columns of an output: `image`, the carried ones, the task's, `error`.

    `carried` maps a manifest's column to its name in the output, which differs where the task has a column of that
    name. `schema` gives the carried columns' Arrow types, `metadata` the settings of the run. `late`
    counts, by kind, the rows that failed only when they were written.
    """

    carried: Mapping[str, str]
    columns: tuple[Column, ...]
    schema: Callable[[], pa.Schema]
    metadata: Mapping[str, Any]
    late: Counter[str] = field(default_factory=Counter)

    @classmethod
    def carrying(cls, schema: pa.Schema, columns: tuple[Column, ...], metadata: Mapping[str, Any]) -> Layout:
        """The layout of rows that carry these columns along."""
        return cls(carried_names(schema.names, columns), columns, lambda: schema, metadata)

    def failed(self, error: RowError) -> RowError:
        """Note an error that came up in writing a row; gives it back."""
        self.late[error.kind] += 1
        return error

    @property
    def names(self) -> list[str]:
        """The columns of the output, in their order."""
        return ["image", *self.carried.values(), *(column.name for column in self.columns), "error"]

    def carried_types(self) -> dict[str, str]:
        """The input's columns that are carried, with their Arrow types."""
        return types_of(self.schema) if self.carried else {}

    def record(self, result: Result) -> dict[str, Any]:
        """A result as names and values, in the order of the columns."""
        row = result.row
        record: dict[str, Any] = {"image": row.name}
        record.update((shown, row.columns.get(name)) for name, shown in self.carried.items())
        record.update((column.name, value) for column, value in zip(self.columns, result.values, strict=True))
        record["error"] = None if result.error is None else str(result.error)
        return record

    def value(self, result: Result, *names: str) -> Any:
        """The value of the first of these columns that the task has."""
        values = {column.name: value for column, value in zip(self.columns, result.values, strict=True)}
        return next(values[name] for name in names if name in values)

    def caption_lines(self, result: Result) -> list[str]:
        """The lines of an image's text file: its captions, or if they are ranked, the best; none if it has none."""
        value = self.value(result, "caption", "captions")
        captions = [value] if isinstance(value, str) else value or []
        ranked = any(column.best_first for column in self.columns)
        return captions[:1] if ranked else captions


def types_of(schema: Callable[[], pa.Schema]) -> dict[str, str]:
    """Names of columns and their Arrow types, in words."""
    return {field.name: str(field.type) for field in schema()}


def written(results: Sequence[Result]) -> list[Result]:
    """Those of the results that are not left out."""
    return [result for result in results if not result.left_out]


def carried_names(names: Sequence[str], columns: tuple[Column, ...]) -> dict[str, str]:
    """Names of carried columns in the output: `input_NAME` where NAME is the output's own."""
    own = {*RESERVED, *(column.name for column in columns)}
    shown = {name: name for name in names}
    for name in own.intersection(names):
        while shown[name] in own or shown[name] in names:
            shown[name] = f"input_{shown[name]}"
    return shown


def column_in_words(column: Column) -> str:
    """A task's column in words: its kind, and of a tensor its shape and precision."""
    if column.kind != "tensor":
        return column.kind
    return f"tensor of {' x '.join(map(str, column.shape))} in {column.dtype}"
