"""Results of a model, as `blip2 caption` and `blip2 vqa` write them, and the result files of benchmarks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from blip2cli.commands.results.rows import open_results
from blip2cli.commands.score.records import Prediction
from blip2cli.commands.score.tables import TABLES, field, texts_in
from blip2cli.errors import UsageError
from blip2cli.records import RowError

PredictionKind = Literal["answers", "captions", "labels"]

LABELS = "labels"
"""The column of `classify --top` with the best labels."""

TEXT_COLUMNS: dict[str, PredictionKind] = {
    "answer": "answers",
    "caption": "captions",
    "captions": "captions",
    "text": "captions",
    "label": "labels",
}
"""Columns that hold the texts of a model, and their kind."""


@dataclass(frozen=True)
class Predictions:
    """All results: of what column, how many were lists of several texts, and how many rows could not be read."""

    rows: Sequence[Prediction]
    column: str
    several: int
    unreadable: int

    @property
    def kind(self) -> PredictionKind | None:
        """What they are, as their column says."""
        return TEXT_COLUMNS.get(self.column)


def read_predictions(names: Sequence[str], column: str | None, kept: Iterable[str]) -> Predictions:
    """Read results; `kept` names the columns that are used later. Raises UsageError."""
    tables = open_results(names, TABLES).parts
    columns = list(dict.fromkeys(name for table in tables for name in table.column_names()))
    chosen = column or next((name for name in reversed(columns) if name in TEXT_COLUMNS), None)
    if chosen is None or chosen not in columns:
        wanted_column = chosen or " or ".join(TEXT_COLUMNS)
        raise UsageError(
            f"{', '.join(names)}: no column {wanted_column}",
            f"It has: {', '.join(columns) or 'no columns'}. --column names the one to score.",
        )
    kept, rows, several, unreadable = tuple(kept), [], 0, 0
    for record in (record for table in tables for record in table.records()):
        if record is None:
            unreadable += 1
            continue
        texts = texts_in(record.get(chosen))
        several += len(texts) > 1
        rows.append(_prediction(record, texts, kept))
    return Predictions(rows, chosen, several, unreadable)


def _prediction(record: Mapping[str, Any], texts: list[str], kept_columns: Iterable[str]) -> Prediction:
    error = record.get("error") or (None if texts else RowError("missing", "nothing was written"))
    columns = {name: value for name in kept_columns if (value := field(record, name)) is not None}
    return Prediction("" if error else texts[0], None if error is None else str(error), columns)
