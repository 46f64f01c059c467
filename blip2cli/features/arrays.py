"""Feature files that are NumPy arrays, with the metadata of their rows in a Parquet file."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

IMAGE = "image_path"
"""The column that names the images, which is `image` elsewhere."""


class ArrayPart:
    """One array, mapped while it is read, and its metadata. Rows that failed are zeros, and their metadata says so."""

    def __init__(self, path: Path) -> None:
        self.path = path
        array = self._opened()
        if not isinstance(array, np.ndarray) or array.ndim < 2 or array.dtype.kind != "f":
            raise ValueError(f"{path.name} is not an array of features")
        number = path.stem.rpartition("_")[2]
        metadata = path.parent.parent / "metadata" / f"metadata_{number}.parquet"
        read = pq.read_table(metadata)
        names = ["image" if name == IMAGE else name for name in read.column_names]
        self.files = (path, metadata)
        self.table = read.rename_columns(names).replace_schema_metadata(read.schema.metadata)
        self.rows = len(array)
        if len(self.table) != self.rows:
            raise ValueError(f"{path.name} has {self.rows} rows, its metadata {len(self.table)}")
        self.shape = array.shape[1:]
        self.schema: pa.Schema = self.table.schema

    def blocks(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The file is mapped again for each block: pages stay in memory as long as they are mapped."""
        good = self.table["error"].is_null().to_numpy()
        for first in range(0, self.rows, size):
            yield self._opened()[first : first + size], good[first : first + size]

    def vectors(self, rows: Sequence[int]) -> np.ndarray:
        vectors: np.ndarray = self._opened()[list(rows)]
        return vectors

    def records(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = self.table.take(list(rows)).to_pylist()
        return records

    def _opened(self) -> np.ndarray:
        try:
            array: np.ndarray = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OverflowError, TypeError, zipfile.BadZipFile) as error:  # its header is damaged
            raise ValueError(f"{self.path.name} is not an array: {error}") from None
        return array
