"""The page itself: a template, a style sheet and a script, filled with data as text, never as markup.

The page's own content security policy allows it no other style and script than these, by their digests, and only
images inside the page.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip2cli import __version__
from blip2cli.commands.report.table import Field, PageTable
from blip2cli.commands.report.thumbnails import Album
from blip2cli.records import RowError

if TYPE_CHECKING:
    from blip2cli.commands.report import ReportSettings

HERE = Path(__file__).parent

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
    def left_out(self) -> tuple[str, ...]:
        """What was left out, in words."""
        table, album = self.table, self.album
        bare = len(table) - len({*album.place, *album.faults}) if album.side else 0
        notes = []
        if table.more:
            of = f" of {table.total:,}" if table.total is not None else ""
            bound = f"--limit {self.settings.limit}" if len(table) == self.settings.limit else "no room for more text"
            notes.append(f"The first {len(table):,}{of} rows are shown ({bound}).")
        if bare:
            bound = f"--thumbnails-mb {self.settings.thumbnails_mb:g}"
            notes.append(f"{bare:,} rows are shown without thumbnails, because the limit was reached ({bound}).")
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
        table = self.table
        numbers = {id(field): at for at, field in enumerate(table.fields)}

        def number(field: Field | None) -> int | None:
            return None if field is None else numbers[id(field)]

        return {
            "names": table.names,
            "errors": {at: error for at, error in enumerate(table.errors) if error is not None},
            "faults": {row: str(fault) for row, fault in self.album.faults.items()},
            "places": [self.album.place.get(at, -1) for at in range(len(table))],
            "fields": [{"name": field.name, "kind": field.kind, "values": field.values} for field in table.fields],
            "answer": number(table.answer),
            "question": number(table.question),
            "scores": [number(field) for field in table.scores],
            "side": self.album.side,
            "block": BLOCK,
        }


def kind_of(error: str) -> str:
    """The kind of an error, before its colon; errors are counted by it."""
    kind = RowError.parsed(error).kind
    return kind if len(kind) <= 30 else "other"


def render(page: Page) -> bytes:
    """The page in UTF-8."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    album = page.album.thumbnails
    blocks = [album[at : at + BLOCK] for at in range(0, len(album), BLOCK)]
    text = environment.get_template("page.html").render(
        page=page,
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src {digest(style)}; script-src {digest(script)}; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        data=Markup(embedded(page.data())),
        blocks=[Markup(embedded(block)) for block in blocks],
        version=__version__,
    )
    return text.encode("utf-8", "backslashreplace")


def embedded(value: Any) -> str:
    """A value as JSON that can stand in a script element: nothing in it ends the element, or a line."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def digest(text: str) -> str:
    """A text's digest in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _ordered(run: Mapping[str, Any]) -> list[str]:
    keys = [key for key, value in run.items() if value not in (None, "", [], {}, False)]
    return sorted(keys, key=lambda key: FIRST.index(key) if key in FIRST else len(FIRST))


def _shown(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "\n".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
