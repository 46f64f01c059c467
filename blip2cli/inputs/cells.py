"""Texts in cells of tables: what counts as a text, and lists, which CSV holds as JSON."""

from __future__ import annotations

import json
from typing import Any

from blip2cli.records import RowError

NOT_TEXTS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "true or false"),
    (dict, "an object"),
    ((list, tuple), "a list"),
    (bytes, "bytes"),
)
"""Types of values that are not texts, and what they are called. Numbers and times are texts as they are printed."""


class NotTexts(ValueError):
    """A cell that holds something else than texts; `error` is its row's."""

    def __init__(self, column: str, value: Any) -> None:
        self.error = RowError("unsupported", f"column {column} holds {_kind(value)}, not a text")
        super().__init__(str(self.error))


def text_in(column: str, value: Any) -> str:
    """The text of a cell that is not empty. Raises NotTexts."""
    listed = json_texts(value) if isinstance(value, str) else None
    if listed:  # a list of texts that was written to CSV; its brackets are not part of any text
        raise NotTexts(column, listed)
    if not isinstance(value, str) and _kind(value):
        raise NotTexts(column, value)
    return str(value)


def texts_in(column: str, cell: Any) -> list[str]:
    """The texts of a cell that is a text, or a list of texts, perhaps as JSON. Raises NotTexts."""
    if isinstance(cell, str):
        listed = json_texts(cell)
        return [cell] if listed is None else listed
    entries = cell if isinstance(cell, (list, tuple)) else [cell]
    return [text_in(column, entry) for entry in entries if entry is not None]


def json_texts(cell: str) -> list[str] | None:
    """The texts of a JSON list of texts; None for any other text."""
    listed = json_list(cell)
    return listed if listed is not None and all(isinstance(entry, str) for entry in listed) else None


def json_list(cell: str) -> list[Any] | None:
    """The entries of a JSON list; None for any other text."""
    if not cell.startswith("["):
        return None
    try:
        listed: list[Any] = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    return listed


def _kind(value: Any) -> str:
    """What a value that is not a text is called; empty for others."""
    return next((name for types, name in NOT_TEXTS if isinstance(value, types)), "")
