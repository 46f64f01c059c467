"""CSV and TSV: a line that names the columns, then a row a line; what no cell can hold is JSON in it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from blip2cli.host import storage
from blip2cli.outputs.jsonl import json_line
from blip2cli.outputs.lines import LinesOutput
from blip2cli.records import Column, Result

CELL = 1 << 30
"""Longest cell that is read back."""

NUMPY_DTYPES = {"fp32": "float32", "fp16": "float16"}
"""Dtype of a column of tensors → NumPy's name of it."""


class CsvOutput(LinesOutput):
    """A CSV file in UTF-8, compressed where its name says so; null is an empty cell. Cells are not altered."""

    def text(self, results: Sequence[Result]) -> bytes:
        names = self.layout.names
        lines = [] if self.rows else [self._line(names)]
        for result in results:
            record = self.layout.record(result)
            lines.append(self._line([_cell(record[name]) for name in names]))
        return "".join(lines).encode("utf-8", "backslashreplace")

    def _line(self, cells: Sequence[Any]) -> str:
        """Cells as a line.

        Not every Python puts a carriage return into quotation marks where lines end with a line feed alone, so it is
        written with both, which are then replaced.
        """
        buffer = io.StringIO()
        csv.writer(buffer, dialect=self._dialect, lineterminator="\r\n").writerow(cells)
        return buffer.getvalue().removesuffix("\r\n") + "\n"

    def continues(self, data: bytes) -> bool:
        text = data.decode("utf-8", "replace")
        whole, _, last = text.rpartition("\n")
        width = len(self.layout.names)
        csv.field_size_limit(CELL)
        try:
            rows = list(csv.reader(io.StringIO(whole, newline=""), dialect=self._dialect))
            end = next(csv.reader([last], dialect=self._dialect), [])
        except csv.Error:
            return False
        torn = rows[-1:] if whole.count('"') % 2 else []  # the line feed was inside a cell
        return all(len(row) == width for row in rows[: len(rows) - len(torn)]) and len(end) <= width

    def tail(self) -> bytes:
        return b"" if self.rows else self.text(())

    def records(self) -> Iterator[dict[str, Any]]:
        csv.field_size_limit(CELL)
        with storage.decompressed(str(self.out)) as opened:
            lines = io.TextIOWrapper(opened.file, encoding="utf-8", newline="")
            for record in csv.DictReader(lines, dialect=self._dialect):
                values = {column.name: _value(record[column.name], column) for column in self.layout.columns}
                yield {**record, **values, "error": record["error"] or None}

    @property
    def _dialect(self) -> str:
        return "excel-tab" if ".tsv" in self.out.suffixes else "excel"


def _cell(value: Any) -> Any:
    """A value as the text of a cell."""
    if value is None or (isinstance(value, (str, int, float)) and not isinstance(value, bool)):
        return value
    text = json.loads(json_line({"value": value}))["value"]
    return text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)


def _value(cell: str, column: Column) -> Any:
    """What a task's column held."""
    if column.kind == "string":
        return cell
    if not cell:
        return None
    value = json.loads(cell)
    if column.kind == "tensor":
        return np.array(value, dtype=NUMPY_DTYPES[column.dtype])
    return value
