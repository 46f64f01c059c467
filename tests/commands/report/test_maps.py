"""Maps of where the model looked, in a page: from every format, and over the picture in a browser."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blip2cli.commands.report import table, write_report
from blip2cli.commands.report.options import ReportSettings
from blip2cli.records import ImageRef, Row
from tests.commands.report.pages import CIRCLE, data_of, reported, results
from tests.conftest import Typed

MAP = [[0.0, 1.0], [0.5, 0.25]]
BYTES = base64.b64encode(bytes([0, 255, 128, 64])).decode()
WORDS = {"words": ["red", "circle"], "word_maps": [1.0, 0, 0, 0, 0, 0, 0, 1.0]}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_the_maps_of_every_format_are_in_the_page(suffix: str, typed: Callable[..., Typed]) -> None:
    out = f"rows{suffix}"
    words = ["-t", "a red circle", "--explain-words", "--workers", 0, "-o", out]
    assert typed("match", CIRCLE, *words).code == 0
    data = reported(typed, out)
    assert [field["name"] for field in data["fields"]] == ["text", "itc", "itm"]
    maps = data["maps"]["0"]
    assert [one[:3] for one in maps] == [["", word, 8] for word in ("", "a", "red", "circle")]
    assert all(max(base64.b64decode(one[3])) == 255 and len(base64.b64decode(one[3])) == 64 for one in maps)


def test_maps_of_several_answers_have_their_names(typed: Callable[..., Typed]) -> None:
    row = {"image": str(CIRCLE), "shape": "circle", "shape_map": MAP, "red": "yes", "red_map": MAP, "error": None}
    assert reported(typed, results("wide.jsonl", row))["maps"] == {
        "0": [["shape", "", 2, BYTES], ["red", "", 2, BYTES]]
    }


@pytest.mark.parametrize(
    "value", ["[[", "no map", [[2.0, 0.0], [0.0, 0.0]], [0.5, 0.5], [[10**400]], [[0.1], [0.1, 0.2]], 3, [[]], []]
)
def test_a_column_map_that_holds_no_map_is_a_column_like_others(value: Any, typed: Callable[..., Typed]) -> None:
    data = reported(typed, results("rows.jsonl", {"image": str(CIRCLE), "caption": "a", "map": value, "error": None}))
    assert data["maps"] == {} and [field["name"] for field in data["fields"]] == ["caption", "map"]


def test_rows_above_a_number_of_letters_are_shown_without_maps(
    typed: Callable[..., Typed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "MOST_MAP_LETTERS", 2 * len(BYTES))
    row = {"image": str(CIRCLE), "caption": "a", "map": MAP, "error": None}
    assert list(reported(typed, results("rows.jsonl", row, row, row))["maps"]) == ["0", "1"]
    assert "The maps of the first 2 rows with maps are shown." in Path("gallery.html").read_text()


def test_a_map_lies_over_the_picture_as_strongly_as_the_slider_says(tmp_path: Path, look: Callable[..., Any]) -> None:
    page = tmp_path / "gallery.html"
    evil = "<img src=x onerror=alert(1)>"
    columns = [
        {"caption": "a red circle", "map": MAP, **WORDS},
        {"caption": "none", "map": None},
        {"caption": evil, "map": MAP, "words": [evil, "b"], "word_maps": WORDS["word_maps"]},
    ]
    rows = [Row(at, f"{at}.png", ImageRef(str(CIRCLE)), columns=each) for at, each in enumerate(columns)]
    write_report(rows, ReportSettings(page, quiet=True), "rows", {})
    assert len(data_of(page)["maps"]) == 2
    tab = look(page, expected="willReadFrequently")  # which reading its pixels here provokes
    tab.locator(".card").first.click()
    canvas, slider = tab.locator("#map"), tab.get_by_role("slider", name="Strength of the map")
    assert tab.locator("#map-choice button").all_inner_texts() == ["a red circle", "red", "circle"]
    canvas.wait_for()
    alpha = "at => document.getElementById('map').getContext('2d').getImageData(...at, 1, 1).data[3]"
    assert tab.evaluate(alpha, [639, 0]) == 0 and tab.evaluate(alpha, [0, 0]) == 255
    tab.get_by_role("button", name="circle", exact=True).click()
    assert tab.evaluate(alpha, [639, 0]) == 255 and tab.evaluate(alpha, [639, 639]) == 0
    slider.fill("30")
    assert canvas.evaluate("element => element.style.opacity") == "0.3"
    slider.press("ArrowRight")
    assert slider.input_value() == "31" and tab.locator("#lightbox-place").inner_text() == "1 of 3 images"
    boxes = [part.bounding_box() for part in (canvas, tab.locator("#full-picture img"))]
    assert boxes[0] == boxes[1]
    tab.get_by_role("button", name="Next").click()
    assert canvas.is_hidden() and slider.is_hidden()
    tab.get_by_role("button", name="Next").click()
    canvas.wait_for()
    assert tab.locator("#map-choice button").all_inner_texts() == [evil, evil, "b"]
    assert json.loads(canvas.evaluate("element => element.style.opacity")) == 0.31
