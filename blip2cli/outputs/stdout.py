"""Rows on stdout: JSON lines into a pipe, a table on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from blip2cli.errors import OutputError, reason
from blip2cli.host.terminal import TablePrinter, figure
from blip2cli.outputs.commits import Commit
from blip2cli.outputs.formats import Output
from blip2cli.outputs.jsonl import json_line
from blip2cli.outputs.layout import Layout, written
from blip2cli.records import Result

NUMBERS = ("integer", "number")
"""The kinds of columns that hold numbers."""


def open_stdout(target: object, settings: object, layout: Layout, header: object) -> Output:
    """The rows on stdout: a table where that is a terminal."""
    return TableStream(layout) if sys.stdout.isatty() else JsonlStream(layout)


class JsonlStream(Output):
    """JSON lines; every write is flushed."""

    committed = Commit()

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def write(self, results: Sequence[Result]) -> None:
        lines = b"".join(json_line(self.layout.record(result)) for result in written(results))
        try:
            sys.stdout.buffer.write(lines)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(
                f"cannot write to stdout: {reason(error)}", "Free some space, or name a file for --out."
            ) from None

    def commit(self) -> None:
        """Every write is flushed."""

    def finish(self) -> None:
        """Every write is flushed."""


class TableStream(Output):
    """A readable table, printed as the rows come: of the task's columns; where it has none, of all."""

    committed = Commit()

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        names = [column.name for column in layout.columns] or list(layout.carried.values())
        self.table = TablePrinter(["image", *names], _numbers(layout))

    def write(self, results: Sequence[Result]) -> None:
        rows = []
        for result in written(results):
            error = None if result.error is None else str(result.error)
            carried = [result.row.columns.get(name) for name in self.layout.carried]
            values = result.values if self.layout.columns else carried
            rows.append(([result.row.name, *map(_shown, values)], error))
        if rows:
            self.table.print_rows(rows)

    def commit(self) -> None:
        sys.stdout.flush()

    def finish(self) -> None:
        self.commit()


def _numbers(layout: Layout) -> list[str]:
    """The columns of the table that hold numbers."""
    if layout.columns:
        return [column.name for column in layout.columns if column.kind in NUMBERS]
    import pyarrow as pa

    types = {field.name: field.type for field in layout.schema()}
    return [
        shown
        for name, shown in layout.carried.items()
        if name in types and (pa.types.is_integer(types[name]) or pa.types.is_floating(types[name]))
    ]


def _shown(value: object) -> str:
    if value is None:
        return ""
    shape = getattr(value, "shape", None)
    if shape is not None:
        first = ", ".join(figure(number) for number in value.reshape(-1)[:3])  # type: ignore[attr-defined]  # an array
        return f"{' x '.join(map(str, shape))}: {first}, ..."
    if isinstance(value, float):
        return figure(value)
    return " | ".join(map(_shown, value)) if isinstance(value, list) else str(value)
