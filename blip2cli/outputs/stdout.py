"""Rows on stdout: JSON lines into a pipe, a table on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from blip2cli.outputs import Layout
from blip2cli.outputs.jsonl import json_line
from blip2cli.records import Result
from blip2cli.terminal import TablePrinter


class JsonlStream:
    """JSON lines, flushed as they come."""

    committed = 0

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def write(self, results: Sequence[Result]) -> None:
        for result in results:
            sys.stdout.buffer.write(json_line(self.layout.record(result)))

    def commit(self) -> None:
        sys.stdout.buffer.flush()

    def finish(self) -> None:
        self.commit()


class TableStream:
    """A readable table, printed as the rows come."""

    committed = 0

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.table = TablePrinter(["image", *(column.name for column in layout.columns)])

    def write(self, results: Sequence[Result]) -> None:
        for result in results:
            self.table.print_row([result.row.name, *map(_shown, result.values)], result.error)

    def commit(self) -> None:
        sys.stdout.flush()

    def finish(self) -> None:
        self.commit()


def _shown(value: object) -> str:
    if value is None:
        return ""
    shape = getattr(value, "shape", None)
    if shape is not None:
        first = ", ".join(f"{number:.3f}" for number in value.reshape(-1)[:3])  # type: ignore[attr-defined]  # an array
        return f"{' x '.join(map(str, shape))}: {first}, ..."
    return " | ".join(value) if isinstance(value, list) else str(value)
