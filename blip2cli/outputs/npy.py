"""Features as clip-retrieval lays them out: an array of NumPy, and a Parquet file of what its rows are about."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from blip2cli.errors import UsageError
from blip2cli.host.files import new_temporary, publish
from blip2cli.outputs.journal import CommitLog
from blip2cli.outputs.layout import Layout
from blip2cli.outputs.parquet import ParquetOutput

if TYPE_CHECKING:
    import pyarrow as pa

FEATURES, IMAGE = "features", "image_path"
ROWS_AT_ONCE = 4096


class NpyOutput(ParquetOutput):
    """One array, and beside it its metadata: row i of the one is row i of the other. Rows with an error are zeros."""

    suffix = ".parquet"

    def __init__(self, out: Path, layout: Layout, journal: CommitLog) -> None:
        self.array_path = out
        number = out.stem.rpartition("_")[2]
        near = out.parent.parent / "metadata" if out.parent.name == "img_emb" else out.parent
        self.metadata_path = near / f"metadata_{number}.parquet"
        column = layout.columns[-1]
        if column.name != FEATURES or len(layout.columns) > 1:
            raise UsageError("--format npy is for features of images", "Write those of texts to Parquet.")
        self.shape, self.dtype = column.shape, {"fp32": np.float32, "fp16": np.float16}[column.dtype]
        super().__init__(out, layout, journal)

    def _write_whole(self, tables: Iterator[pa.Table]) -> None:
        """The array first: the metadata is renamed into place with it, by whoever keeps the shard."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = sum(pq.read_metadata(path).num_rows for path in self._parts())
        temporary = new_temporary(self.array_path)
        array = _opened(temporary, self.dtype, (rows, *self.shape))
        whole = self.schema
        fields = [_renamed(field) for field in whole if field.name != FEATURES]
        self.schema = pa.schema(fields, metadata=whole.metadata)
        try:
            self._write(self.metadata_path, self._parted(tables, array))
        finally:
            self.schema = whole
        if isinstance(array, np.memmap):
            array.flush()
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        self._announce(temporary)
        publish(temporary, self.array_path)

    def _parted(self, tables: Iterator[pa.Table], array: np.ndarray) -> Iterator[pa.Table]:
        """The tables without their features, which are put into the array."""
        at = 0
        for table in tables:
            array[at : at + len(table)] = _numbers(table[FEATURES], self.shape, self.dtype)
            at += len(table)
            rest = table.drop_columns([FEATURES])
            yield rest.rename_columns([field.name for field in self.schema])

    def _whole(self) -> Iterator[pa.Table]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        array, at = np.load(self.array_path, mmap_mode="r", allow_pickle=False), 0
        with pq.ParquetFile(self.metadata_path) as file:
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                kind: Any = self.schema.field(FEATURES).type
                flat = np.ascontiguousarray(array[at : at + len(batch)]).reshape(-1)
                failed = columns["error"].is_valid()
                storage = pa.FixedSizeListArray.from_arrays(flat, type=kind.storage_type, mask=failed)
                columns["image"] = columns[IMAGE]
                columns[FEATURES] = pa.ExtensionArray.from_storage(kind, storage)
                yield pa.Table.from_arrays([columns[field.name] for field in self.schema], schema=self.schema)
                at += len(batch)

    def values(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """The columns of the metadata, where images have the name that clip-retrieval reads."""
        import pyarrow.parquet as pq

        if not self.journal.commit.finished:
            yield from super().values(*names)
            return
        with pq.ParquetFile(self.metadata_path) as file:
            stored = [IMAGE if name == "image" else name for name in names]
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=stored):
                yield from zip(*(batch.column(name).to_pylist() for name in stored), strict=True)

    def _reopen(self) -> None:
        self._accept(self.out)
        self._write(self._part(0), self._whole())
        self.parts = 1


def _renamed(field: pa.Field) -> pa.Field:
    return field.with_name(IMAGE) if field.name == "image" else field


def _opened(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A new array in a file, of zeros."""
    if shape[0]:
        return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with open(path, "wb") as file:
        np.save(file, np.zeros(shape, dtype), allow_pickle=False)
    return np.zeros(shape, dtype)


def _numbers(column: pa.ChunkedArray, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """A column of tensors as an array [rows, *shape], zeros where there is none."""
    array = np.zeros((len(column), *shape), dtype)
    for at, scalar in enumerate(column):
        if scalar.is_valid:
            array[at] = scalar.to_numpy()
    return array
