"""The page itself: what it shows of its rows and their runs, and the data that its script reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip2cli.commands.pages.bounds import MOST_LETTERS
from blip2cli.commands.pages.html import rendered
from blip2cli.commands.pages.thumbnails import Album
from blip2cli.commands.report.cards import Cards, cards_of
from blip2cli.commands.report.table import ANSWERS, MOST_COLUMNS, Field, PageTable
from blip2cli.records import RowError

if TYPE_CHECKING:
    from markupsafe import Markup

    from blip2cli.commands.report.options import ReportSettings

BROWSER = Path(__file__).parent / "browser"
"""The folder of what runs in the browser."""

SCRIPTS = (
    "data",
    "words",
    "pictures",
    "maps",
    "facets",
    "filters",
    "cards",
    "panel",
    "charts",
    "lightbox",
    "selection",
    "start",
)
"""The files of the page's script, in their order: they are one script, and later ones use what earlier ones declare."""

BLOCK = 128
"""Thumbnails of one block: a browser reads a block when it first shows one of them."""

FIRST = ("task", "model", "revision", "dtype", "precision", "prompt", "prompts", "questions", "template")
"""Settings of a run that are shown before the others."""


@dataclass(frozen=True)
class Page:
    """What a page shows: see `write_report`."""

    title: str
    table: PageTable
    album: Album
    runs: Mapping[str, Mapping[str, Any]]
    settings: ReportSettings

    @cached_property
    def cards(self) -> Cards:
        """The images of the page."""
        return cards_of(self.table, self.album, self.settings.out)

    @cached_property
    def left_out(self) -> tuple[str, ...]:
        """What was left out, in words."""
        table = self.table
        bare = self.cards.bare if self.album.side else 0
        notes = []
        if table.more:
            of = f" of {table.total:,}" if table.total is not None else ""
            bound = f"--limit {self.settings.limit}" if len(table) == self.settings.limit else "no room for more text"
            notes.append(f"The first {len(table):,}{of} rows are shown ({bound}).")
        if bare:
            bound = f"--thumbnails-mb {self.settings.thumbnails_mb:g}"
            notes.append(f"{bare:,} images are shown without thumbnails, because the limit was reached ({bound}).")
        if table.maps_left_out:
            notes.append(f"The maps of the first {len(table.maps):,} rows with maps are shown.")
        if table.columns_left_out:
            notes.append(f"The first {MOST_COLUMNS} columns are shown.")
        return tuple(notes)

    @property
    def kinds(self) -> list[tuple[str, int]]:
        """The kinds of errors, and how many rows have one."""
        return Counter(kind_of(error) for error in self.table.errors if error is not None).most_common()

    def shown_settings(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """The settings of each run that are worth showing, the most important first."""
        return [
            (name, [(key.replace("_", " "), _shown(run[key])) for key in _ordered(run)])
            for name, run in self.runs.items()
        ]

    def data(self) -> dict[str, Any]:
        """What the script reads."""
        table, cards = self.table, self.cards
        at = {field: number for number, field in enumerate(table.fields)}
        answers = table.answers
        return {
            "rows": len(table),
            "results": cards.alone,
            "names": cards.names,
            "places": cards.places,
            "links": cards.links,
            "faults": cards.faults,
            "cards": None if len(cards) == len(table) else cards.of_row,
            "maps": {row: [page_map.packed() for page_map in maps] for row, maps in table.maps.items()},
            "errors": {row: error for row, error in enumerate(table.errors) if error is not None},
            "fields": [packed(field) for field in table.fields],
            "question": None if table.question is None else at[table.question],
            "file": None if table.results_file is None else at[table.results_file],
            "answers": [at[field] for field in answers],
            "named": bool(answers) and answers[0].name not in ANSWERS,
            "scores": [[at[score] for score in scores] for scores in table.scores()],
            "numbers": [at[field] for field in table.numbers],
            "side": self.album.side,
            "block": BLOCK,
        }


def packed(field: Field) -> dict[str, Any]:
    """A column as the script reads it: repeated texts are held once, and each row has a number."""
    column = {"name": field.name[:MOST_LETTERS], "kind": field.kind}
    texts = [value if isinstance(value, str) else None for value in field.values]
    choices = [text for text in dict.fromkeys(texts) if text is not None]
    if field.kind != "text" or 2 * len(choices) > len(texts):
        return {**column, "values": field.values}
    numbers = {choice: number for number, choice in enumerate(choices)}
    return {**column, "choices": choices, "codes": [-1 if text is None else numbers[text] for text in texts]}


def kind_of(error: str) -> str:
    """The kind of an error, before its colon; errors are counted by it."""
    kind = RowError.parsed(error).kind
    return kind if len(kind) <= 30 else "other"


def render(page: Page) -> bytes:
    """The page in UTF-8."""
    album = page.album.thumbnails
    blocks = [album[at : at + BLOCK] for at in range(0, len(album), BLOCK)]
    return rendered(
        BROWSER,
        "page",
        page.title,
        script="\n".join((BROWSER / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS),
        page=page,
        data=embedded(page.data()),
        blocks=[embedded(block) for block in blocks],
    )


def embedded(value: Any) -> Markup:
    """A value as JSON that can stand in a script element: nothing in it ends the element, or a line."""
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _ordered(run: Mapping[str, Any]) -> list[str]:
    keys = [key for key, value in run.items() if value not in (None, "", [], {}, False)]
    return sorted(keys, key=lambda key: FIRST.index(key) if key in FIRST else len(FIRST))


def _shown(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "\n".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
