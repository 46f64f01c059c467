"""Files of generated features, as `blip2 embed` writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from blip2cli.settings.metadata import as_metadata

WRITTEN_AT_ONCE = 8192
"""Rows that are in memory together."""


def write_features(path: Path, kind: str, rows: int, vectors: Callable[[int], np.ndarray]) -> None:
    """Write an Arrow or Parquet file of features, by its suffix.

    Args:
        path: the file.
        kind: the features' kind, as in `blip2 embed --features`.
        rows: how many.
        vectors: makes those of some rows, [n, ...], of a type and shape that do not depend on n.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = vectors(min(WRITTEN_AT_ONCE, rows))
    tensor = pa.fixed_shape_tensor(pa.from_numpy_dtype(first.dtype), first.shape[1:])
    metadata = as_metadata({"features": kind, "model": "made up"})
    schema = pa.schema([("image", pa.string()), ("features", tensor), ("error", pa.string())], metadata=metadata)
    with pa.ipc.new_file(path, schema) if path.suffix == ".arrow" else pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, WRITTEN_AT_ONCE):
            block = vectors(min(WRITTEN_AT_ONCE, rows - start)) if start else first
            storage = pa.FixedSizeListArray.from_arrays(block.reshape(-1), type=tensor.storage_type)
            names = pa.array([f"{at}.jpg" for at in range(start, start + len(block))])
            columns = [names, pa.ExtensionArray.from_storage(tensor, storage), pa.nulls(len(block), pa.string())]
            writer.write_table(pa.table(columns, schema=schema))


def unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors in fp32, each of length 1."""
    normalised: np.ndarray = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return normalised
