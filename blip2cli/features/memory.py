"""Features in memory, which are read as those of a file are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from blip2cli.errors import UsageError
from blip2cli.features.files import Features

if TYPE_CHECKING:
    import pyarrow as pa

HINT = "Give rows of Blip2.embed, an array of [rows, width], or the name of a file that blip2 embed wrote."


class MemoryPart:
    """An array of features [rows, ...], and the other columns of its rows."""

    files: tuple[Path, ...] = ()

    def __init__(self, array: np.ndarray, present: np.ndarray, others: Sequence[dict[str, Any]]) -> None:
        import pyarrow as pa

        self.array = array
        self.present = present
        self.others = others
        self.rows = len(array)
        self.shape = array.shape[1:]
        names = dict.fromkeys(name for record in others for name in record)
        self.schema: pa.Schema = pa.schema([pa.field(name, pa.null()) for name in names])  # types are not looked at

    def blocks(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first in range(0, self.rows, size):
            yield self.array[first : first + size], self.present[first : first + size]

    def vectors(self, rows: Sequence[int]) -> np.ndarray:
        vectors: np.ndarray = self.array[list(rows)]
        return vectors

    def records(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        return [self.others[row] for row in rows]


def features_in_memory(value: Any) -> Features:
    """Features of an array [rows, width] or [rows, tokens, width], or of rows with a column `features`.

    Raises UsageError for anything else. Rows of an array are named by their numbers.
    """
    if isinstance(value, np.ndarray) or hasattr(value, "__array__"):
        array = np.asarray(value)
        others: list[dict[str, Any]] = [{"image": row, "error": None} for row in range(len(array) if array.ndim else 0)]
        present = np.ones(len(others), bool)
    else:
        array, present, others = _of_rows(value)
    if array.ndim not in (2, 3) or array.dtype.kind != "f" or not array.shape[-1]:
        raise UsageError("these are not features: rows of at least one number each", HINT)
    return Features(Path("features"), (MemoryPart(array, present, others),), {})


def _of_rows(rows: Any) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
    """The features of rows, which of them have some, and their other columns."""
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
        raise UsageError(f"a value of type {type(rows).__name__} is not features", HINT)
    others, vectors = [], []
    for row in rows:
        if not isinstance(row, Mapping) or "features" not in row:
            raise UsageError("a row has no column features", HINT)
        vectors.append(row["features"])
        others.append({"image": None, "error": None} | {name: row[name] for name in row if name != "features"})
    shapes = {np.shape(vector) for vector in vectors if vector is not None}
    if len(shapes) > 1:
        raise UsageError("rows have features of different shapes", "Give those of one model.")
    shape = shapes.pop() if shapes else (1,)
    zeros = np.zeros(shape, np.float32)
    array = np.stack([zeros if vector is None else np.asarray(vector, np.float32) for vector in vectors] or [zeros])
    present = np.array([vector is not None for vector in vectors], bool)
    return array[: len(vectors)], present, others
