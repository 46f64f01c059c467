"""Pages for tests, and what is read from them: as data, and in a browser."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from blip2cli.commands.report import write_report
from blip2cli.commands.report.options import ReportSettings
from blip2cli.records import ImageRef, Row
from tests.conftest import Typed

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
CIRCLE = EXAMPLES / "red-circle.png"
PAGE = Path("gallery.html")
Run = Callable[..., Typed]


def results(name: str, *rows: dict) -> str:
    """A JSON-lines file."""
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def reported(typed: Run, *words: object) -> dict:
    """The data of the page of a report that went well."""
    ran = typed("report", *words, "--overwrite")
    assert ran.code == 0, ran.err
    return data_of(PAGE)


# ---- pages as data ----


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


# ---- pages in a browser ----

ROWS = 600
QUESTIONS = ("what is it?", "is it a café?")
EVIL = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1><!--<script>"


def encoded(colour: tuple[int, int, int]) -> bytes:
    """A small picture in one colour."""
    buffer = BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return buffer.getvalue()


def columns_of(number: int) -> dict[str, Any]:
    """Row 7 of ten is an error, and has no score."""
    failed = number % 10 == 7
    return {
        "question": QUESTIONS[number % 2],
        "answer": None if failed else f"a thing numbered n{number}" + " and more" * (number % 3),
        "score": None if failed else ((number * 37) % ROWS) / ROWS,
        "error": ("missing: no such file" if number % 20 == 7 else "empty: 0 bytes") if failed else None,
    }


def row_of(number: int) -> Row:
    """A row with a picture."""
    image = ImageRef(data=encoded((number % 250, 90, 120)))
    return Row(number, f"photos/{number:04}.jpg", image, columns_of(number))


def written(out: Path, *columns: dict[str, Any], names: tuple[str, ...] = (), title: str = "rows") -> Path:
    """A page with these rows, without pictures; by default each is about an image of its own."""
    rows = [Row(n, names[n] if names else f"{n}.jpg", columns=some) for n, some in enumerate(columns)]
    write_report(rows, ReportSettings(out, quiet=True), title, {})
    return out


def names(tab: Any, most: int = 3) -> list[str]:
    """The names on the first cards."""
    return [card.locator(".name").inner_text() for card in tab.locator(".card").all()[:most]]


def count(tab: Any) -> str:
    """How many images are shown, in the page's words."""
    return tab.locator("#count").inner_text()


def focused(tab: Any) -> int:
    """The position that the focused card says it has; 0 for anything else."""
    return int(tab.evaluate("document.activeElement.getAttribute('aria-posinset')") or 0)


def labels(tab: Any, facet: str) -> list[str]:
    """The labels of a facet with their counts."""
    buttons = tab.locator(".facet", has=tab.get_by_role("heading", name=facet, exact=True)).locator(".label")
    return [" ".join(button.inner_text().split()) for button in buttons.all()]


def press(tab: Any, facet: str, label: str) -> None:
    """Press a label of a facet."""
    holder = tab.locator(".facet", has=tab.get_by_role("heading", name=facet, exact=True))
    if holder.get_attribute("open") is None:
        holder.locator("summary").click()
    holder.locator(".label", has=tab.get_by_text(label, exact=True)).click()
