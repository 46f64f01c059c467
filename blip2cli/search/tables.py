"""Feature files that are tables: Parquet, a row group at a time, and Arrow, mapped into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blip2cli.search.features import COLUMN


class ParquetPart:
    """One Parquet file."""

    def __init__(self, path: Path) -> None:
        self.file = pq.ParquetFile(path, memory_map=True, pre_buffer=False)
        self.rows = self.file.metadata.num_rows
        whole = self.file.schema_arrow
        self.shape = shape_of(whole)
        self.schema = without_features(whole)
        groups = self.file.metadata.num_row_groups
        self.firsts = np.cumsum([0, *(self.file.metadata.row_group(at).num_rows for at in range(groups))])

    def blocks(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in self.file.iter_batches(size, columns=[COLUMN], use_threads=False):
            yield tensors(batch.column(0), self.shape)

    def vectors(self, rows: Sequence[int]) -> np.ndarray:
        column = pa.chunked_array([chunk for chunk in self._taken(rows, [COLUMN])[COLUMN].chunks if len(chunk)])
        return np.concatenate([tensors(chunk, self.shape)[0] for chunk in column.chunks])

    def records(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._taken(rows, self.schema.names).to_pylist()
        return found

    def _taken(self, rows: Sequence[int], columns: list[str]) -> pa.Table:
        """Columns of rows, in rising order."""
        groups = groupby(rows, lambda row: int(np.searchsorted(self.firsts, row, "right")) - 1)
        return pa.concat_tables(
            self.file.read_row_group(number, columns=columns, use_threads=False).take(
                [row - int(self.firsts[number]) for row in some]
            )
            for number, some in groups
        )


class ArrowPart:
    """One Arrow file; only pages that are looked at are in memory."""

    def __init__(self, path: Path) -> None:
        self.file = pa.ipc.open_file(pa.memory_map(str(path)))
        whole = self.file.schema
        self.shape = shape_of(whole)
        self.schema = without_features(whole)
        batches = self.file.num_record_batches
        self.firsts = np.cumsum([0, *(self.file.get_batch(at).num_rows for at in range(batches))])
        self.rows = int(self.firsts[-1])

    def blocks(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for number in range(self.file.num_record_batches):
            column = self.file.get_batch(number).column(COLUMN)
            for first in range(0, len(column), size):
                yield tensors(column.slice(first, size), self.shape)

    def vectors(self, rows: Sequence[int]) -> np.ndarray:
        return np.concatenate([tensors(batch.column(COLUMN), self.shape)[0] for batch in self._taken(rows)])

    def records(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        return [record for batch in self._taken(rows) for record in batch.select(self.schema.names).to_pylist()]

    def _taken(self, rows: Sequence[int]) -> Iterator[pa.RecordBatch]:
        """Rows, in rising order."""
        for row in rows:
            number = int(np.searchsorted(self.firsts, row, "right")) - 1
            yield self.file.get_batch(number).slice(row - int(self.firsts[number]), 1)


def shape_of(schema: pa.Schema) -> tuple[int, ...]:
    """The shape of a row's features. Raises ValueError where there are none."""
    kind = schema.field(COLUMN).type if COLUMN in schema.names else None
    if not isinstance(kind, pa.FixedShapeTensorType):
        raise ValueError(f"it has no column {COLUMN} of tensors")
    return tuple(kind.shape)


def without_features(schema: pa.Schema) -> pa.Schema:
    """The other columns; the metadata stays."""
    return pa.schema([field for field in schema if field.name != COLUMN], metadata=schema.metadata)


def tensors(column: pa.ExtensionArray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A column of tensors as an array [rows, *shape], without a copy where that can be, and which rows have one."""
    storage = column.storage
    size = storage.type.list_size
    values = storage.values.slice(storage.offset * size, len(storage) * size)
    there = np.ones(len(storage), bool) if not storage.null_count else storage.is_valid().to_numpy(zero_copy_only=False)
    return values.to_numpy(zero_copy_only=False).reshape(len(storage), *shape), there
