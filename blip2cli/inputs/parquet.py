"""Parquet manifests, read by row group and never whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from blip2cli.errors import Blip2Error, UsageError
from blip2cli.inputs.manifest import Layout, lay_out
from blip2cli.records import Row

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from blip2cli.inputs import ColumnChoice

ROWS_AT_ONCE = 128
"""Rows decoded together; bounds memory where the manifest holds the images' bytes."""


class ParquetManifest:
    """One Parquet file."""

    manifest_text = True

    def __init__(self, name: str, columns: ColumnChoice) -> None:
        self.name = name
        with self._open() as file:
            self._schema: pa.Schema = file.schema_arrow
            self._rows: int = file.metadata.num_rows
        self._layout: Layout = lay_out(name, self._schema.names, columns)

    def rows(self, start: int = 0) -> Iterator[Row]:
        import pyarrow as pa

        with self._open() as file:
            groups, number = _from(file, start)
            try:
                for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, row_groups=groups):
                    skipped = min(max(start - number, 0), len(batch))
                    number += skipped
                    for record in _records(batch[skipped:]):
                        yield self._layout.row(record, number)
                        number += 1
            except (pa.ArrowException, OSError) as error:
                raise Blip2Error(
                    f"{self.name} is broken behind row {number}: {_reason(error)}", "Write it anew."
                ) from None

    def count(self) -> int | None:
        return self._rows

    def column_names(self) -> list[str]:
        return list(self._layout.carried)

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([self._schema.field(name) for name in self._layout.carried])

    def _open(self) -> pq.ParquetFile:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(self.name)
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"cannot read {self.name}: {_reason(error)}", "Is it a Parquet file?") from None


def _from(file: pq.ParquetFile, start: int) -> tuple[list[int], int]:
    """The row groups from that on which holds the start-th row, and the number of rows before them."""
    group, before = 0, 0
    while group < file.num_row_groups and before + file.metadata.row_group(group).num_rows <= start:
        before += file.metadata.row_group(group).num_rows
        group += 1
    return list(range(group, file.num_row_groups)), before


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".:")


def _records(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    columns = [_values(column) for column in batch.columns]
    for values in zip(*columns, strict=True):
        yield dict(zip(batch.schema.names, values, strict=True))


def _values(column: pa.Array) -> list[Any]:
    """Python values; arrays of tensors; Arrow's own scalars where Python has no such value (nanoseconds, far dates)."""
    import pyarrow as pa

    if isinstance(column.type, pa.FixedShapeTensorType):
        return [scalar.to_numpy() if scalar.is_valid else None for scalar in column]
    if getattr(column.type, "unit", None) != "ns":
        try:
            values: list[Any] = column.to_pylist()
            return values
        except (ValueError, OverflowError):
            pass
    return [scalar if scalar.is_valid else None for scalar in column]
