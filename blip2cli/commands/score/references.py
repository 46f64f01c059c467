"""References written by people: COCO's captions, annotations of VQAv2, OK-VQA and GQA, tables of texts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blip2cli.commands.score.predictions import PredictionKind
from blip2cli.commands.score.records import Reference
from blip2cli.commands.score.tables import field, identity, open_tables, texts_in
from blip2cli.errors import UsageError

if TYPE_CHECKING:
    from blip2cli.inputs import Source

COLUMNS: dict[PredictionKind, tuple[str, ...]] = {
    "answers": ("answers", "answer"),
    "captions": ("captions", "caption"),
    "labels": ("label", "class"),
}
"""Columns that may hold the references, the most likely first."""

HINT = "Give it with --reference-column. For VQA, give the annotations file; the questions file can be added."


@dataclass(frozen=True)
class References:
    """All references: what they are, how many had no text, and how many rows could not be read."""

    rows: Sequence[Reference]
    kind: PredictionKind
    without_text: int
    unreadable: int


def read_references(
    names: Sequence[str], column: str | None, kind: PredictionKind | None, kept: Iterable[str]
) -> References:
    """Read references for results of a kind, None if it is not known. Raises UsageError.

    A table without references, but with ids of questions, only adds its columns to those of the others.
    """
    kinds: tuple[PredictionKind, ...] = tuple(COLUMNS) if kind is None else (kind,)
    known = {name: each for each in kinds for name in COLUMNS[each]} if column is None else {column: kinds[0]}
    tables = open_tables(names)
    chosen = [(table, next((name for name in known if name in table.column_names()), None)) for table in tables]
    found_columns = [name for _, name in chosen if name is not None]
    if not found_columns:
        columns = dict.fromkeys(name for table in tables for name in table.column_names())
        raise UsageError(
            f"{', '.join(names)}: no column {' or '.join(known)}",
            f"It has: {', '.join(columns) or 'no columns'}. {HINT}",
        )
    kept = tuple(kept)
    more = {key: record for table, name in chosen if name is None for key, record in _by_question(table, kept).items()}
    rows, without_text, unreadable = [], 0, 0
    for table, name in chosen:
        for record in table.records() if name is not None else ():
            if record is None:
                unreadable += 1
                continue
            reference = _reference(record, record.get(name or ""), kept, more)
            without_text += not reference.texts
            rows += [reference] if reference.texts else []
    return References(rows, known[found_columns[0]], without_text, unreadable)


def _by_question(table: Source, kept: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The columns of a table by the ids of its questions."""
    each = ((identity(record.get("question_id")), record) for record in table.records() if record is not None)
    return {key: _kept(record, kept) for key, record in each if key is not None}


def _reference(
    record: Mapping[str, Any], cell: Any, kept: Iterable[str], more: Mapping[str, Mapping[str, Any]]
) -> Reference:
    others = more.get(identity(record.get("question_id")) or "", {}) if more else {}
    return Reference(tuple(texts_in(cell)), {**others, **_kept(record, kept)}, _marks(cell))


def _kept(record: Mapping[str, Any], kept: Iterable[str]) -> dict[str, Any]:
    return {name: value for name in kept if (value := field(record, name)) is not None}


def _marks(cell: Any) -> tuple[str, ...] | None:
    """The other fields of answers that may come from one person: the VQA evaluation compares all of them."""
    entries = [entry for entry in cell if isinstance(entry, dict)] if isinstance(cell, (list, tuple)) else []
    if not entries or len({str(entry.get("answer_id")) for entry in entries}) == len(entries):
        return None
    return tuple(
        json.dumps({name: value for name, value in entry.items() if name != "answer"}, sort_keys=True, default=str)
        for entry in entries
        if entry.get("answer") is not None
    )
