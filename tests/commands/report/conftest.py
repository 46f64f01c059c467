"""Fixtures: pages as data, and looking at them with a headless browser."""

import json
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text directly behind each of their starts."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.started: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open = False
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.started.append((tag, dict(attrs)))
        self.texts.append("")
        self.open = True

    def handle_endtag(self, tag: str) -> None:
        self.open = False

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[-1] += data

    def all(self, tag: str, **wanted: str) -> list[str]:
        """The texts of the elements of that name with those attributes."""
        found = zip(self.started, self.texts, strict=True)
        return [text for (name, given), text in found if name == tag and wanted.items() <= given.items()]


def data_of(page: Path) -> dict[str, Any]:
    """What the page's script reads."""
    return json.loads(Elements(page).all("script", id="data")[0])


def thumbnails_of(page: Path) -> list[str]:
    """The page's thumbnails, in base64."""
    blocks = Elements(page).all("script", **{"class": "thumbnails"})
    return [thumbnail for block in blocks for thumbnail in json.loads(block)]


def column(page: Path, name: str) -> list[Any]:
    """The values of a column, one a row."""
    return values_of(next(field for field in data_of(page)["fields"] if field["name"] == name))


def values_of(field: dict[str, Any]) -> list[Any]:
    """The values of a column of the page's data."""
    if "values" in field:
        return field["values"]
    return [None if code < 0 else field["choices"][code] for code in field["codes"]]


@pytest.fixture
def look(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page, in a context with the given settings. What it logs, asks for or throws fails the test.

    `expected` is in messages that it may log.
    """
    contexts: list[Any] = []
    faults: list[str] = []

    def opened(page: Path, width: int = 1280, height: int = 800, expected: str = "", **settings: Any) -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **settings))
        tab = contexts[-1].new_page()
        tab.set_default_timeout(60_000)
        tab.on("console", lambda told: None if expected and expected in told.text else faults.append(told.text))
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
        tab.on("request", lambda asked: None if asked.url.startswith(("file:", "data:")) else faults.append(asked.url))
        tab.goto(page.resolve().as_uri())
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert faults == []
