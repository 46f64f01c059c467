"""Rows of features with their groups, as Python is given them."""

from __future__ import annotations

from typing import Any

import numpy as np

from blip2cli.features.duplicates import COLUMNS, UNUSABLE, find_duplicates
from blip2cli.features.files import Features
from blip2cli.features.preference import compared_rows, preferred


def grouped_rows(features: Features, threshold: float, score_column: str | None) -> list[dict[str, Any]]:
    """The rows' columns without the features, with those of COLUMNS and `error`.

    The first row of a group is kept, or the one with the best score. Raises UsageError for a column that is not there.
    """
    rows, scores = compared_rows(features, score_column)
    duplicates = find_duplicates(features, rows[preferred(scores)], np.arange(features.rows), threshold)
    records = features.records(range(features.rows)) if features.rows else []
    grouped = []
    for row, record in enumerate(records):
        values = (*duplicates.verdict(row), records[int(duplicates.kept[row])]["image"])
        error = str(UNUSABLE) if duplicates.unusable[row] else record["error"]
        columns = {name: value for name, value in record.items() if name != "error"}
        grouped.append({**columns, **dict(zip(COLUMNS, values, strict=True)), "error": error})
    return grouped
