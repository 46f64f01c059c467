"""Which rows are compared, and which of them are preferred."""

from __future__ import annotations

import numpy as np

from blip2cli.errors import UsageError
from blip2cli.features.files import Features

ROWS_AT_ONCE = 1 << 16
"""Rows whose columns are read together."""


def preferred(*qualities: np.ndarray) -> np.ndarray:
    """The numbers of rows, those with the highest first quality first; of equals by the next one, then as they come.

    What is not a number comes last.
    """
    keys = [np.where(np.isnan(quality), np.inf, -quality) for quality in qualities]
    return np.lexsort([np.arange(len(keys[0])), *reversed(keys)])


def compared_rows(features: Features, score_column: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the rows without an error, and the scores in a column; zeros where none is named.

    Raises UsageError where there is no such column, or its values are not numbers.
    """
    if score_column is not None and score_column not in features.schema.names:
        names = ", ".join(features.schema.names)
        raise UsageError(f"{features.path} has no column {score_column}", f"Its columns are: {names}.")
    rows: list[int] = []
    scores: list[float] = []
    for first in range(0, features.rows, ROWS_AT_ONCE):
        numbers = range(first, min(first + ROWS_AT_ONCE, features.rows))
        for number, record in zip(numbers, features.records(numbers), strict=True):
            if not record["error"]:
                rows.append(number)
                scores.append(0.0 if score_column is None else _score(record[score_column], score_column, number))
    return np.array(rows, np.int64), np.array(scores)


def _score(value: object, name: str, row: int) -> float:
    """A score; NaN, which is the lowest, where there is none. Raises UsageError for what is not a number."""
    if value is None or value == "":
        return float("nan")
    try:
        return float(str(value))
    except ValueError:
        raise UsageError(
            f"column {name} is not a number in row {row + 1:,}: {str(value)[:40]!r}", "Name a column of numbers."
        ) from None
