"""The site of the pages is whole, needs nothing from elsewhere, and shows what the pages mean."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from xml.etree import ElementTree

import pytest

from docs.site.pictures import BLOCK
from tests.docs.pages import FENCE, PAGES, REPOSITORY, examples, name

SETTINGS = REPOSITORY / "docs" / "site" / "mkdocs.yml"
LOADS = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}
"""Elements that make a browser fetch something, and where they say what."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built so strictly that a broken link or a page missing from the navigation ends it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", SETTINGS, "-d", folder]
    built = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_is_in_the_site(site: Path) -> None:
    names = {page.stem for page in PAGES if page.parent.name == "docs"}
    assert names <= {page.stem for page in site.glob("*.html")}


def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert [url for url in fetched_by(page) if re.match(r"(\w+:)?//", url)] == [], page
    for sheet in site.rglob("*.css"):
        imported = re.findall(r"(?:url\(|@import )[\"']?((?:\w+:)?//[^)\"']*)", sheet.read_text(encoding="utf-8"))
        assert imported == [], sheet
    for picture in site.rglob("*.svg"):
        fetched = r"@font-face|@import|href=[\"']?(?:\w+:)?//"
        assert re.findall(fetched, picture.read_text(encoding="utf-8")) == [], picture


def test_search_finds_a_page_and_no_page_is_wider_than_a_phone(site: Path, browser: Any) -> None:
    faults: list[str] = []
    with served(site) as address, closing(browser.new_context(viewport={"width": 390, "height": 800})) as context:
        tab = context.new_page()
        tab.on("console", lambda message: faults.append(message.text))
        tab.on("request", lambda asked: None if asked.url.startswith((address, "data:")) else faults.append(asked.url))
        for page in ("index", "tour", "cli", "api-reference", "performance"):
            tab.goto(f"{address}/{page}.html")
            assert tab.evaluate("document.documentElement.scrollWidth") <= 390, page
        tab.set_viewport_size({"width": 1280, "height": 800})
        tab.get_by_placeholder("Search").press_sequentially("repaired", delay=20)
        tab.locator(".md-search-result__item", has_text="Images that are broken").first.wait_for(timeout=10_000)
    assert faults == []


def test_copying_an_example_takes_what_is_typed(site: Path, browser: Any) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    with served(site) as address, closing(browser.new_context(permissions=permissions)) as context:
        tab = context.new_page()
        for page, at, typed in (
            ("tour", 2, "blip2 vqa docs/examples/questions.jsonl --model tiny --scores --out answers.parquet"),
            ("api", 0, 'from blip2cli import Blip2\nmodel = Blip2("tiny")'),
        ):
            tab.goto(f"{address}/{page}.html")
            tab.locator("[data-md-type=copy]").nth(at).click()
            tab.get_by_text("Copied to clipboard").wait_for(timeout=10_000)
            assert tab.evaluate("navigator.clipboard.readText()") == typed


def test_the_python_reference_is_made_from_the_docstrings(site: Path) -> None:
    page = (site / "api-reference.html").read_text(encoding="utf-8")
    for documented in ("Blip2.caption", "errors.Blip2Error", "settings.GenerationSettings.num_beams"):
        assert f'id="blip2cli.{documented}"' in page
    assert "Number of beams; 1 is greedy." in page
    assert "Annotated" not in page


def test_the_pictures_of_the_tour_are_of_its_commands() -> None:
    tour = (REPOSITORY / "docs" / "tour.md").read_text(encoding="utf-8")
    for block, picture in BLOCK.findall(tour):
        if picture.endswith(".svg"):
            words = "".join(ElementTree.parse(REPOSITORY / "docs" / picture).getroot().itertext())
            for example in examples(block):
                assert without_spaces(example.command) in without_spaces(words), picture


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_lists_and_tables_begin_behind_an_empty_line(page: Path) -> None:
    """Without it GitHub shows a list, and the site does not."""
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    joined = re.findall(r"^(?!#|[-*] |\||\d+\. |\s)\S.*\n(?:[-*] |1\. |\|).*$", prose, re.MULTILINE)
    assert joined == []


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which a folder is served while inside."""
    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and says nothing of it."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


def without_spaces(text: str) -> str:
    return "".join(text.split())


class _Loaded(HTMLParser):
    """Notes what a browser fetches for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.urls += [value for key, value in attrs if key == LOADS.get(tag) and value]


def fetched_by(page: Path) -> list[str]:
    loaded = _Loaded()
    loaded.feed(page.read_text(encoding="utf-8"))
    return loaded.urls
