"""Pages for tests in a browser, and what is read from them."""

from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from blip2cli.commands.report import ReportSettings, write_report
from blip2cli.records import ImageRef, Row

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
