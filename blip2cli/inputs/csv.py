"""CSV and TSV manifests: the first line names the columns; every value is carried as the text it is."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from blip2cli.errors import UsageError
from blip2cli.host import storage
from blip2cli.inputs.manifest import Layout, lay_out
from blip2cli.records import Row

if TYPE_CHECKING:
    import pyarrow as pa

    from blip2cli.inputs import ColumnChoice

FIELD_BYTES = 16 << 20
"""Longest cell that is read."""


class CsvManifest:
    """One CSV file in UTF-8, with or without a byte-order mark; bytes that are no UTF-8 are replaced."""

    manifest_text = True

    def __init__(self, name: str, columns: ColumnChoice) -> None:
        self.name = name
        self._dialect = "excel-tab" if ".tsv" in Path(name).suffixes else "excel"
        header = next(self._lines(), None)
        if not header:
            raise UsageError(f"{name} is empty", "Its first line must name the columns.")
        self._header = header
        self._layout: Layout = lay_out(name, header, columns)

    def rows(self, start: int = 0) -> Iterator[Row]:
        lines = islice(self._lines(), 1 + start, None)
        for number, values in enumerate(lines, start):
            if len(values) > len(self._header):
                yield self._layout.broken(number, f"row {number + 1} has {len(values)} cells, not {len(self._header)}")
            else:
                yield self._layout.row(dict(zip(self._header, values, strict=False)), number)

    def count(self) -> int | None:
        return sum(1 for _ in self._lines()) - 1

    def column_names(self) -> list[str]:
        return list(self._layout.carried)

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([pa.field(name, pa.string()) for name in self._layout.carried])

    def _lines(self) -> Iterator[list[str]]:
        csv.field_size_limit(FIELD_BYTES)
        try:
            with storage.decompressed(self.name) as opened:
                file = io.TextIOWrapper(opened.file, encoding="utf-8-sig", errors="replace", newline="")
                yield from (values for values in csv.reader(file, dialect=self._dialect) if values)
        except OSError as error:
            raise UsageError(
                f"cannot read {self.name}: {error.strerror or error}", "Check the path and its permissions."
            ) from None
        except csv.Error as error:
            raise UsageError(f"cannot read {self.name}: {error}", "Is it a CSV file?") from None
