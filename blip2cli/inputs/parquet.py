"""Parquet manifests, read by row group and never whole."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from blip2cli.errors import Blip2Error, UsageError, reason
from blip2cli.host import storage
from blip2cli.inputs.batches import BYTES_AT_ONCE, ROWS_AT_ONCE, ROWS_MEASURED, measured, rows_of
from blip2cli.inputs.columns import ColumnChoice, choose_columns
from blip2cli.inputs.manifest import Manifest
from blip2cli.records import Row

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


BUFFER = 1 << 20
"""Bytes of a column that are read together; without it, all that a row group has of it."""


class ParquetManifest(Manifest):
    """One Parquet file."""

    def __init__(self, name: str, columns: ColumnChoice) -> None:
        self.name = name
        with self._open() as file:
            self._schema: pa.Schema = file.schema_arrow
            self._rows: int = file.metadata.num_rows
            held = sum(file.metadata.row_group(number).num_rows for number in range(file.num_row_groups))
        if held != self._rows:
            raise UsageError(
                f"cannot read {name}: its row groups hold {held} rows, and it says {self._rows}",
                "Create the file again.",
            )
        self.columns = choose_columns(name, self._schema.names, columns)
        self._read: list[str] | None = None

    def narrowed(self, names: Collection[str]) -> ParquetManifest:
        """The same rows, of which only these carried columns are read."""
        carried = tuple(name for name in self.columns.carried if name in names)
        own = [name for name in (self.columns.image, self.columns.text) if name is not None]
        if not own or any("." in name for name in (*own, *carried)):  # which means a field
            return self
        narrow = copy(self)
        narrow.columns = replace(self.columns, carried=carried)
        narrow._read = [*own, *carried]
        return narrow

    def rows(self, start: int = 0) -> Iterator[Row]:
        with self._open() as file:
            groups, number = _from(file, start)
            batches = file.iter_batches(_rows_at_once(file), row_groups=groups, columns=self._read)
            found = start
            for row in rows_of(self.columns, batches, number, start):
                yield row
                found += 1
        if start < self._rows != found:
            raise Blip2Error(f"{self.name} ends after {found} rows of {self._rows}", "Create the file again.")

    def count(self) -> int | None:
        return self._rows

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([self._schema.field(name) for name in self.columns.carried])

    def measured(self, field: pa.Field) -> pa.Field:
        with self._open() as file:
            return measured(self.name, field, file.iter_batches(ROWS_MEASURED, columns=[field.name]))

    def _open(self) -> pq.ParquetFile:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = storage.open_binary(self.name) if storage.is_url(self.name) else self.name
            return pq.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise UsageError(
                f"cannot read {self.name}: {reason(error)}", storage.reading_hint(error, "Is it a Parquet file?")
            ) from None


def metadata_of(name: str) -> Mapping[bytes, bytes] | None:
    """What is noted in a file by keys. Raises OSError and Arrow's errors."""
    import pyarrow.parquet as pq

    with storage.open_binary(name) as file:
        metadata: Mapping[bytes, bytes] | None = pq.read_schema(file).metadata
        return metadata


def _rows_at_once(file: pq.ParquetFile) -> int:
    """Rows that are decoded together: fewer where they are large, as those with images in them."""
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    largest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=0)
    return max(1, min(ROWS_AT_ONCE, int(BYTES_AT_ONCE / max(largest, 1))))


def _from(file: pq.ParquetFile, start: int) -> tuple[list[int], int]:
    """The row groups from that on which holds the start-th row, and the number of rows before them."""
    group, before = 0, 0
    while group < file.num_row_groups and before + file.metadata.row_group(group).num_rows <= start:
        before += file.metadata.row_group(group).num_rows
        group += 1
    return list(range(group, file.num_row_groups)), before
