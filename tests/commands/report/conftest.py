"""Fixtures: looking at pages with a headless browser."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


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
