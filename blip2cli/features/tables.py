"""Feature files that are tables: Parquet, a row group at a time, and Arrow, mapped into memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

COLUMN = "features"
"""The column of the vectors."""

READ_AT_ONCE = 1 << 20
"""Bytes of a Parquet file that are read at once: a row group may be larger than memory."""


class ParquetPart:
    """One Parquet file, open only while it is read: there may be more of them than a process may have open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = (path,)
        with pq.ParquetFile(path) as file:
            self.metadata, schema = file.metadata, file.schema_arrow
        self.rows = self.metadata.num_rows
        self.shape = shape_of(schema)
        self.schema = without_features(schema)
        groups = range(self.metadata.num_row_groups)
        self.firsts = np.cumsum([0, *(self.metadata.row_group(at).num_rows for at in groups)])

    def blocks(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        with pq.ParquetFile(self.path, metadata=self.metadata, buffer_size=READ_AT_ONCE, pre_buffer=False) as file:
            for batch in file.iter_batches(size, columns=[COLUMN], use_threads=False):
                yield tensors(batch.column(0), self.shape)
        pa.default_memory_pool().release_unused()

    def vectors(self, rows: Sequence[int]) -> np.ndarray:
        column = pa.chunked_array([chunk for chunk in self._read_rows(rows, [COLUMN])[COLUMN].chunks if len(chunk)])
        return np.concatenate([tensors(chunk, self.shape)[0] for chunk in column.chunks])

    def records(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = self._read_rows(rows, self.schema.names).to_pylist()
        return records

    def _read_rows(self, rows: Sequence[int], columns: list[str]) -> pa.Table:
        """Columns of rows, in rising order."""
        groups = groupby(rows, lambda row: int(np.searchsorted(self.firsts, row, "right")) - 1)
        with self._opened() as file:
            return pa.concat_tables(
                file.read_row_group(number, columns=columns, use_threads=False).take(
                    [row - int(self.firsts[number]) for row in group_rows]
                )
                for number, group_rows in groups
            )

    def _opened(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.path, metadata=self.metadata, memory_map=True, pre_buffer=False)


class ArrowPart:
    """One Arrow file, mapped only while it is read; only pages that are read are in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = (path,)
        file = self._opened()
        self.shape = shape_of(file.schema)
        self.schema = without_features(file.schema)
        self.firsts = np.cumsum([0, *(file.get_batch(at).num_rows for at in range(file.num_record_batches))])
        self.rows = int(self.firsts[-1])

    def blocks(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The pages of a block are released behind it: they would stay in memory as long as the file is mapped."""
        with self.path.open("rb") as opened:
            mapping = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        file = pa.ipc.open_file(pa.py_buffer(mapping))
        for number in range(file.num_record_batches):
            column = file.get_batch(number).column(COLUMN)
            for first in range(0, len(column), size):
                yield tensors(column.slice(first, size), self.shape)
                if hasattr(mmap, "MADV_DONTNEED"):
                    mapping.madvise(mmap.MADV_DONTNEED)

    def vectors(self, rows: Sequence[int]) -> np.ndarray:
        return np.concatenate([tensors(batch.column(COLUMN), self.shape)[0] for batch in self._read_rows(rows)])

    def records(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        return [record for batch in self._read_rows(rows) for record in batch.select(self.schema.names).to_pylist()]

    def _read_rows(self, rows: Sequence[int]) -> Iterator[pa.RecordBatch]:
        """Rows, in rising order."""
        file = self._opened()
        for row in rows:
            number = int(np.searchsorted(self.firsts, row, "right")) - 1
            yield file.get_batch(number).slice(row - int(self.firsts[number]), 1)

    def _opened(self) -> pa.ipc.RecordBatchFileReader:
        return pa.ipc.open_file(pa.memory_map(str(self.path)))


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
    """A column of tensors as an array [rows, *shape], without a copy if possible, and which rows have one."""
    storage = column.storage
    size = storage.type.list_size
    values = storage.values.slice(storage.offset * size, len(storage) * size)
    present = (
        np.ones(len(storage), bool) if not storage.null_count else storage.is_valid().to_numpy(zero_copy_only=False)
    )
    return values.to_numpy(zero_copy_only=False).reshape(len(storage), *shape), present
