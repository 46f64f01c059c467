"""Output rows as the columns that a page shows: text, lists of texts, numbers. All of it bounded."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from blip2cli.commands.pages.bounds import MOST_LETTERS
from blip2cli.commands.report.maps import PageMap, maps_of
from blip2cli.commands.results.rows import RESULTS_FILE
from blip2cli.inputs.cells import json_list
from blip2cli.records import Row

Cell = str | list[str] | int | float | None

ANSWERS = ("answer", "caption", "captions", "text", "label")
"""Names of the main column of a page, by rank; the first column of text if there is none of them."""

QUESTIONS = ("question", "prompt", "query")
"""Names of the column that it answers."""

JOINTS = ("_", ".", " ", "-")
"""What stands between the name of one of several answers and that of its score."""

SCORES = ("rank", "score", "itm", "itc", "probability", "logprob")
"""Names of numbers that are shown first."""

LISTS = ("captions", "sources", "itm_scores", "itc_scores", "labels", "logprobs", "probabilities")
"""Columns that hold lists, which CSV has as JSON."""

NUMBER = re.compile(r"-?(0|[1-9]\d{0,15})(\.\d+)?([eE][+-]?\d{1,2})?")
"""Text that is a number, and one that is finite."""

MOST_ITEMS = 16
"""Items of a list that are shown."""

MOST_TEXT = 64_000_000
"""Letters of all cells together, after which no further row is taken."""

LETTERS_OF_NUMBER = 8
"""Letters that a number counts as."""

MOST_MAP_LETTERS = 16_000_000
"""Letters of all maps together, after which rows are shown without them."""

MOST_COLUMNS = 200
"""Columns that are taken; those that come later are left out."""

EXACT = 1 << 53
"""Up to this number JavaScript represents integers exactly."""


@dataclass(frozen=True, eq=False)
class Field:
    """One column: `values` has a cell for each row. `was_text` is whether its numbers were written as text."""

    name: str
    kind: Literal["text", "texts", "number"]
    values: list[Cell]
    was_text: bool = False

    @property
    def is_answer(self) -> bool:
        """Whether it may hold answers: texts, or whole numbers that were written as text."""
        if self.kind != "number":
            return True
        return self.was_text and all(value is None or isinstance(value, int) for value in self.values)


@dataclass
class PageTable:
    """The rows of a page.

    `maps` are those of where the model looked, by the numbers of their rows, `maps_left_out` is whether there were more
    than fit.

    `pictures` are the rows, by their numbers, with their images or the errors why there are none. `more` is whether
    there are rows that were not taken, `total` how many there are with them, where it is known. `columns_left_out` is
    whether there were more columns than are taken.
    """

    names: list[str] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    fields: list[Field] = field(default_factory=list)
    pictures: list[Row] = field(default_factory=list)
    maps: dict[int, list[PageMap]] = field(default_factory=dict)
    maps_left_out: bool = False
    more: bool = False
    columns_left_out: bool = False
    total: int | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def failed(self) -> int:
        """How many rows have an error."""
        return sum(error is not None for error in self.errors)

    @property
    def answers(self) -> list[Field]:
        """The columns that the page is about.

        The first of the usual names; or else those that have scores beside them, as `vqa --wide` writes them; or else
        all columns of text, and of text that is whole numbers.
        """
        if answer := self._first(ANSWERS):
            return [answer]
        others = [field for field in self.fields if field.name not in (*QUESTIONS, *SCORES, RESULTS_FILE)]
        scored = [field for field in others if self.scores_beside(field)]
        return scored or [field for field in others if field.is_answer]

    def scores_beside(self, answer: Field) -> list[Field]:
        """The numbers that are named after one of several answers: `people_probability` after `people`."""
        names = {f"{answer.name}{joint}{score}" for joint in JOINTS for score in SCORES}
        return [field for field in self.numbers if field.name in names]

    def scores(self) -> list[list[Field]]:
        """For each answer the numbers that belong to it: all, if there is only one answer."""
        answers = self.answers
        if len(answers) == 1 or not answers:
            return [[field for field in self.numbers if field not in answers]]
        return [self.scores_beside(answer) for answer in answers]

    @property
    def question(self) -> Field | None:
        """The column that it answers."""
        return self._first(QUESTIONS)

    @property
    def results_file(self) -> Field | None:
        """The column that says which file a row is from, where there are several."""
        return self._first((RESULTS_FILE,))

    @property
    def numbers(self) -> list[Field]:
        """The columns of numbers, those that are scores first."""
        numbers = [field for field in self.fields if field.kind == "number"]
        return sorted(numbers, key=lambda field: SCORES.index(field.name) if field.name in SCORES else len(SCORES))

    def _first(self, names: tuple[str, ...]) -> Field | None:
        by_name = {field.name: field for field in self.fields if field.kind != "number"}
        return next((by_name[name] for name in names if name in by_name), None)


def table_of(rows: Iterable[Row], limit: int, total: int | None = None) -> PageTable:
    """The rows as columns, up to the limit."""
    table = PageTable(total=total)
    columns = _Columns()
    letters, map_letters, every = 0, 0, iter(rows)
    for number, row in enumerate(islice(every, limit)):
        maps, in_maps = maps_of(row.columns)
        cells = {name: _cell(name, value) for name, value in row.columns.items() if name not in ("error", *in_maps)}
        map_letters += sum(len(page_map.patches) for page_map in maps)
        if map_letters > MOST_MAP_LETTERS:
            table.maps_left_out = True
        elif maps:
            table.maps[number] = maps
        error = row.columns.get("error") or (row.error if cells.keys() <= {RESULTS_FILE} else None)
        if error:  # CSV has only empty cells for missing values
            cells = {name: cell if cell != "" else None for name, cell in cells.items()}
        table.names.append(row.name[:MOST_LETTERS])
        table.errors.append(str(error)[:MOST_LETTERS] if error else None)
        columns.add(cells)
        table.pictures.append(Row(number, row.name, row.image, error=row.error))
        letters += len(row.name) + sum(_letters(cell) for cell in cells.values())
        if letters > MOST_TEXT:
            break
    table.more = next(every, None) is not None
    table.columns_left_out = columns.left_out
    table.fields = [_field(name, values) for name, values in columns.cells.items()]
    return table


class _Columns:
    """The cells of each column, one for every row: None where a row does not have the column.

    `left_out` is whether there were more columns than are taken.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.cells: dict[str, list[Cell]] = {}
        self.left_out = False

    def add(self, row: Mapping[str, Cell]) -> None:
        """Add a row, by the names of its columns."""
        for name, cell in row.items():
            if name in self.cells or len(self.cells) < MOST_COLUMNS:
                self.cells.setdefault(name, [None] * self.rows).append(cell)
            else:
                self.left_out = True
        self.rows += 1
        for cells in self.cells.values():
            cells.extend([None] * (self.rows - len(cells)))


def _field(name: str, values: list[Cell]) -> Field:
    present = [value for value in values if value is not None]
    if name not in (*ANSWERS, *QUESTIONS):
        if all(isinstance(value, str) and (not value or NUMBER.fullmatch(value)) for value in present) and any(present):
            values = [json.loads(value) if isinstance(value, str) and value else None for value in values]
            return Field(name, "number", values, was_text=any(isinstance(value, str) for value in present))
        if present and all(isinstance(value, (int, float)) for value in present):
            return Field(name, "number", values)
    if any(isinstance(value, list) for value in present):
        return Field(name, "texts", [_listed(value) for value in values])
    return Field(name, "text", [value if value is None else str(value) for value in values])


def _listed(value: Cell) -> list[str] | None:
    return value if isinstance(value, list) or value is None else [str(value)]


def _cell(name: str, value: Any) -> Cell:
    """A value as a page shows it."""
    if name in LISTS and isinstance(value, str):
        listed = json_list(value)
        value = value if listed is None else listed
    if hasattr(value, "shape") and getattr(value, "shape", None):
        return f"{' × '.join(map(str, value.shape))} {value.dtype}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (int, float)):
        return value if abs(value) <= EXACT else str(value)
    if isinstance(value, (list, tuple)):
        return _list(value)
    return value if value is None else _text(value)


def _list(values: list[Any] | tuple[Any, ...]) -> Cell:
    if len(values) > MOST_ITEMS and isinstance(values[0], (int, float)):
        return f"{len(values):,} numbers"
    more = [f"… {len(values) - MOST_ITEMS:,} more"] if len(values) > MOST_ITEMS else []
    return [*map(_text, values[:MOST_ITEMS]), *more]


def _text(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value):,} bytes"
    if isinstance(value, (Mapping, list, tuple)):
        value = json.dumps(value, ensure_ascii=False, default=_text)
    text = str(value)
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…"


def _letters(cell: Cell) -> int:
    if isinstance(cell, list):
        return sum(map(len, cell))
    return len(cell) if isinstance(cell, str) else LETTERS_OF_NUMBER
