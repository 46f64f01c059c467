"""Cards in a browser: an image each, with all its answers; counts by answer; full pictures; selecting and exporting."""

import csv
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect

from blip2cli.commands.report import write_report
from blip2cli.commands.report.options import ReportSettings
from blip2cli.records import ImageRef, Row
from tests.commands.report.pages import EVIL, count, labels, names, press, written

Look = Callable[..., Any]
IMAGES = 40
PEOPLE, WEATHER, PLACE = "how many people are there?", "what is the weather?", "where is it?"


def answers_of(image: int) -> list[dict[str, Any]]:
    """Three questions about an image; of image 5 of ten, the second could not be answered."""
    failed = image % 10 == 5
    return [
        {"question": PEOPLE, "answer": str(image % 4), "probability": 0.5 + image / 100},
        {
            "question": WEATHER,
            "answer": None if failed else ("sunny" if image % 3 else "rainy"),
            "probability": None if failed else 0.25,
            "error": "prompt-too-long: 3000 tokens" if failed else None,
        },
        {"question": PLACE, "answer": f"in street {image}", "probability": 1 / (image + 1)},
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cards") / "gallery.html"
    names = tuple(f"photos/{image:02}.jpg" for image in range(IMAGES) for _ in range(3))
    return written(out, *(row for image in range(IMAGES) for row in answers_of(image)), names=names, title="my answers")


def exported(tab: Any, kind: str) -> tuple[str, str]:
    """The name of the file that an export writes, and its content."""
    tab.locator("#export summary").click()
    with tab.expect_download() as download:
        tab.get_by_role("button", name=kind, exact=True).click()
    content = Path(download.value.path()).read_bytes().decode()
    return download.value.suggested_filename, content


def test_an_image_is_one_card_with_all_its_answers(page: Path, look: Look) -> None:
    tab = look(page)
    assert count(tab) == "40 images"
    card = tab.locator(".card").first
    assert card.locator(".question").all_inner_texts() == [PEOPLE, WEATHER, PLACE]
    assert card.locator(".answer").all_inner_texts() == ["0", "rainy", "in street 0"]
    assert card.locator(".score").all_inner_texts() == ["0.50", "0.25", "1.00"]
    failed = tab.locator("[aria-posinset='6'] .answer.bad")
    assert failed.all_inner_texts() == ["prompt-too-long: 3000 tokens"]


def test_answers_are_counted_by_question_and_filter_when_pressed(page: Path, look: Look) -> None:
    tab = look(page)
    assert labels(tab, PEOPLE) == ["0 10", "1 10", "2 10", "3 10"]
    assert labels(tab, WEATHER) == ["sunny 23", "rainy 13"]
    press(tab, PEOPLE, "2")
    assert count(tab) == "10 of 40 images" and names(tab, 2) == ["photos/02.jpg", "photos/06.jpg"]
    assert labels(tab, PEOPLE) == ["0 10", "1 10", "2 10", "3 10"], "what pressing another one would add"
    sunny = sum(image % 3 > 0 and image % 10 != 5 for image in range(2, IMAGES, 4))
    assert labels(tab, WEATHER)[0] == f"sunny {sunny}"
    press(tab, WEATHER, "sunny")
    press(tab, PEOPLE, "3")
    both = [n for n in range(IMAGES) if n % 4 in (2, 3) and n % 3 > 0 and n % 10 != 5]
    assert count(tab) == f"{len(both)} of 40 images"
    tab.get_by_role("button", name=f"Remove the filter {WEATHER}: sunny").click()
    assert count(tab) == "20 of 40 images"
    tab.get_by_role("button", name="Show all").click()
    assert count(tab) == "40 images" and tab.locator(".chip").count() == 0


def test_a_chosen_question_leaves_its_answers_only_and_decides_the_order(page: Path, look: Look) -> None:
    tab = look(page)
    tab.get_by_label("Sort by").select_option("Probability")
    assert names(tab, 2) == ["photos/00.jpg", "photos/39.jpg"], "by the highest of each image"
    assert tab.locator(".card").nth(1).locator(".question").first.inner_text() == PEOPLE
    tab.get_by_label("Question", exact=True).select_option(f"{PLACE} (40)")
    assert tab.locator(".card").first.locator(".question").all_inner_texts() == [PLACE]
    assert names(tab, 3) == ["photos/00.jpg", "photos/01.jpg", "photos/02.jpg"]
    tab.get_by_role("button", name="Descending").click()
    assert names(tab, 1) == ["photos/39.jpg"]


def test_numbers_have_bounds(page: Path, look: Look) -> None:
    tab = look(page)
    tab.get_by_label("Probability at least").fill("0.8")
    assert count(tab) == "11 of 40 images", "30 to 39, and the first for its last answer"
    tab.get_by_label("Probability at most").fill("0.9")
    assert count(tab) == "10 of 40 images"
    tab.get_by_role("button", name="Remove the filter probability: 0.8 to 0.9").click()
    assert count(tab) == "40 images" and tab.get_by_label("Probability at least").input_value() == ""


def test_controls_take_a_sixth_of_the_first_screen_at_most(page: Path, look: Look) -> None:
    for width, height, phone in ((1280, 800, False), (1920, 1080, False), (390, 844, True), (360, 640, True)):
        tab = look(page, width, height, has_touch=phone, is_mobile=phone)
        assert tab.locator("header").bounding_box()["height"] <= height / 6
        first = tab.locator(".card").first.bounding_box()
        assert first["y"] <= height / 6 + 40, "one line of counts is between"
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_what_is_shown_is_exported_as_csv_jsonl_and_names(page: Path, look: Look) -> None:
    tab = look(page)
    press(tab, PEOPLE, "3")
    tab.get_by_label("Sort by").select_option("Probability")
    name, text = exported(tab, "CSV")
    assert name == "my-answers-shown.csv"
    rows = list(csv.DictReader(StringIO(text)))
    assert len(rows) == 30 and list(rows[0]) == ["image", "question", "answer", "probability", "error"]
    assert rows[0]["image"] == "photos/39.jpg" and rows[0]["probability"] == "0.89"
    name, text = exported(tab, "JSON lines")
    records = [json.loads(line) for line in text.splitlines()]
    assert name == "my-answers-shown.jsonl" and len(records) == 30
    assert records[0] == {"image": "photos/39.jpg", **answers_of(39)[0], "error": None}
    assert sum(record["error"] is not None for record in records) == 2
    name, text = exported(tab, "List of files")
    assert name == "my-answers-shown.txt"
    assert sorted(text.split("\n")) == ["", *(f"photos/{image:02}.jpg" for image in range(3, IMAGES, 4))]


def test_selected_images_are_exported_and_shown_alone(page: Path, look: Look) -> None:
    tab = look(page)
    for place in (3, 1):
        tab.locator(".card").nth(place).hover()
        tab.get_by_role("checkbox", name=f"Select photos/{place:02}.jpg").check()
    tab.get_by_role("searchbox").press("Enter")
    tab.keyboard.press("x")
    assert tab.locator("#selected-count").inner_text() == "3 images selected"
    tab.get_by_role("button", name="Only these").click()
    assert count(tab) == "3 of 40 images" and tab.locator(".card.selected").count() == 3
    assert exported(tab, "List of files") == (
        "my-answers-selected.txt", "photos/00.jpg\nphotos/01.jpg\nphotos/03.jpg\n",
    )  # fmt: skip
    tab.get_by_role("button", name="Select none").click()
    assert count(tab) == "40 images" and tab.locator("#selected-count").inner_text() == ""
    press(tab, PEOPLE, "0")
    tab.get_by_role("button", name="Select all").click()
    assert tab.locator("#selected-count").inner_text() == "10 images selected"
    press(tab, PEOPLE, "0")
    assert tab.locator(".card.selected").count() > 0 and count(tab) == "40 images"


def test_shift_selects_all_between(page: Path, look: Look) -> None:
    tab = look(page)
    tab.locator(".card").nth(1).hover()
    tab.get_by_role("checkbox", name="Select photos/01.jpg").check()
    tab.locator(".card").nth(4).click(modifiers=["Shift"])
    assert tab.locator("#selected-count").inner_text() == "4 images selected"
    assert not tab.get_by_role("dialog").is_visible()


def test_an_export_is_what_the_results_say_whatever_they_say(tmp_path: Path, look: Look) -> None:
    columns = {
        "caption": f'a, "b"\r\n{EVIL}\u2028=1+1',
        "captions": ["x", 'y"'],
        "__proto__": "p",
        "score": -1.25e-7,
        "flag": True,
        EVIL: EVIL,
    }
    tab = look(written(tmp_path / "page.html", columns, names=(EVIL,), title="../../a b.jsonl <x>"))
    name, text = exported(tab, "JSON lines")
    assert name == "a-b-jsonl-x-shown.jsonl"
    assert text.count("\n") == 1
    record = dict(json.loads(text, object_pairs_hook=list))
    assert record == {"image": EVIL, **columns, "flag": "true", "error": None}
    _, text = exported(tab, "CSV")
    (header, row) = csv.reader(StringIO(text, newline=""))
    assert dict(zip(header, row, strict=True)) == {
        **{name: str(value) for name, value in record.items()},
        "captions": '["x","y\\""]',
        "score": "-1.25e-7",
        "error": "",
    }
    assert tab.evaluate("window.pwned") is None


# ---- the full picture ----


def saved(path: Path, size: tuple[int, int] = (640, 480)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 160, 60)).save(path)
    return path


def opened_width(tab: Any, width: int) -> None:
    """Wait until the picture of the opened row has that width in pixels."""
    expect(tab.locator("#full-picture img")).to_have_js_property("naturalWidth", width, timeout=60_000)


def test_the_full_picture_is_read_from_its_file_next_to_the_page(tmp_path: Path, look: Look) -> None:
    odd = ["plain.png", "a b#c?d%41.png", "javascript:x.png", "ü 雪.png", "quote'\"<b>.png", "sub/folder/x.png"]
    files = [saved(tmp_path / "photos" / name, (600 + at, 400)) for at, name in enumerate(odd)]
    rows = [Row(n, str(file), ImageRef(path=str(file)), {"caption": "a"}) for n, file in enumerate(files)]
    (tmp_path / "pages").mkdir()
    write_report(rows, ReportSettings(tmp_path / "pages" / "page.html", quiet=True), "full", {})
    tab = look(tmp_path / "pages" / "page.html")
    tab.locator(".card").first.click()
    for at in range(len(odd)):
        opened_width(tab, 600 + at)
        tab.keyboard.press("ArrowRight")
    assert tab.locator("#picture-note").inner_text() == "605 × 400 pixels"
    tab.keyboard.press("Home")
    opened_width(tab, 600)
    tab.keyboard.press("x")
    assert tab.locator("#pick").is_checked()


def test_without_the_file_the_thumbnail_is_shown(tmp_path: Path, look: Look) -> None:
    file = saved(tmp_path / "gone.png")
    rows = [
        Row(0, "gone.png", ImageRef(path=str(file)), {"caption": "a"}),
        Row(1, "held.png", ImageRef(data=file.read_bytes()), {"caption": "b"}),
    ]
    write_report(rows, ReportSettings(tmp_path / "page.html", quiet=True), "thumbnails", {})
    file.unlink()
    tab = look(tmp_path / "page.html", expected="net::ERR_FILE_NOT_FOUND")
    tab.locator(".card").first.click()
    expect(tab.locator("#picture-note")).to_contain_text("Only the thumbnail is shown", timeout=60_000)
    opened_width(tab, 320)
    tab.keyboard.press("ArrowRight")
    opened_width(tab, 320)
    assert tab.locator("#picture-note").inner_text() == ""


# ---- other results ----


def test_a_column_for_each_question_is_a_line_each(tmp_path: Path, look: Look) -> None:
    rows = [
        {
            "people": str(n % 3), "people_probability": n / 20, "weather": "sunny" if n % 2 else "rainy",
            "weather_probability": 0.25, "error": None,
        }
        for n in range(20)
    ]  # fmt: skip
    rows[2] |= {"weather": None, "weather_probability": None, "error": "prompt-too-long: weather: 300 tokens"}
    tab = look(written(tmp_path / "page.html", *rows))
    card = tab.locator(".card").nth(4)
    assert card.locator(".question").all_inner_texts() == ["People", "Weather"]
    assert card.locator(".answer").all_inner_texts() == ["1", "rainy"]
    assert card.locator(".score").all_inner_texts() == ["0.200", "0.250"]
    failed = tab.locator(".card").nth(2)
    assert failed.locator(".answer").all_inner_texts() == ["2", "prompt-too-long: weather: 300 tokens"]
    assert labels(tab, "People") == ["0 7", "1 7", "2 6"] and labels(tab, "Weather") == ["sunny 10", "rainy 9"]
    press(tab, "People", "2")
    press(tab, "Weather", "sunny")
    assert names(tab) == ["5.jpg", "11.jpg", "17.jpg"]
    tab.get_by_label("Sort by").select_option("People probability")
    assert names(tab, 1) == ["17.jpg"]


def test_texts_that_an_image_was_matched_with_come_best_first(tmp_path: Path, look: Look) -> None:
    rows = [{"text": text, "itm": score, "itc": 0.5} for text, score in zip("abcdef", (1, 9, 3, 7, 5, 2), strict=True)]
    tab = look(written(tmp_path / "page.html", *rows, names=("x.jpg",) * 6))
    card = tab.locator(".card")
    assert card.count() == 1 and card.locator(".more").inner_text() == "and 2 more"
    tab.get_by_label("Sort by").select_option("Itm")
    assert card.locator(".answer").all_inner_texts() == ["b", "d", "e", "c"]
    card.click()
    assert tab.locator("#lightbox-rows dl").count() == 7, "six texts, and what is the same in all"
    tab.keyboard.press("Escape")
    tab.get_by_label("Text", exact=True).select_option("d (1)")
    assert card.locator(".answer").all_inner_texts() == ["d"]


def test_numbers_are_shown_to_three_digits_and_all_of_a_column_alike(tmp_path: Path, look: Look) -> None:
    rows = [{"caption": "a", "score": value, "year": year} for value, year in ((0.123456789, 2019), (-9.33e-5, 1999))]
    tab = look(written(tmp_path / "page.html", *rows))
    assert tab.locator(".card .scores b").all_inner_texts() == ["0.123", "2019", "0", "1999"]
    tab.locator(".card").first.click()
    assert tab.locator("#lightbox-rows .number dd").all_inner_texts() == ["0.123", "2019"]
    assert tab.locator("#lightbox-rows .number dd").first.get_attribute("title") == "0.123456789"


def test_of_many_questions_the_answers_are_counted_together(tmp_path: Path, look: Look) -> None:
    rows = [{"question": f"question {n % 30}", "answer": "yes" if n % 3 else "no"} for n in range(60)]
    tab = look(written(tmp_path / "page.html", *rows))
    assert labels(tab, "Answer") == ["yes 40", "no 20"]
    tab.get_by_label("Question", exact=True).select_option("question 2 (2)")
    assert labels(tab, "Answer") == ["yes 2", "no 0"]


def test_the_panel_opens_over_the_images_on_a_phone(page: Path, look: Look) -> None:
    tab = look(page, 390, 844, has_touch=True, is_mobile=True)
    assert not tab.locator("#panel").is_visible()
    tab.get_by_role("button", name="Filters").tap()
    press(tab, PEOPLE, "1")
    tab.get_by_label("Sort by").select_option("Probability")
    tab.get_by_role("button", name="Show 10 images").tap()
    assert not tab.locator("#panel").is_visible() and names(tab, 1) == ["photos/37.jpg"]
    tab.locator(".card").first.tap()
    assert tab.get_by_role("dialog").bounding_box()["width"] == 390
    tab.get_by_role("button", name="Next").tap()
    assert tab.locator("#lightbox-place").inner_text() == "2 of 10 images"
    tab.get_by_role("button", name="Close").tap()
    assert not tab.get_by_role("dialog").is_visible()


def test_huge_cells_names_and_columns_stay_inside_their_cards(tmp_path: Path, look: Look) -> None:
    long = "x" * 4000
    rows = [
        {"question": long, "answer": f"{long}{n}", long: long, "note": "\u0301" * 3000 + "\n" * 500, "score": 1e300 * n}
        for n in range(3)
    ]
    out = written(tmp_path / "page.html", *rows, names=(long, "b" * 4000, "c.jpg"), title="t" * 500)
    for width in (1280, 390):
        tab = look(out, width)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        tab.locator(".card").first.click()
        inside = "part => part.scrollWidth <= part.clientWidth + 1"
        assert all(tab.locator(part).evaluate(inside) for part in ("#lightbox", "#lightbox-text", ".lightbox-bar"))
        tab.keyboard.press("Escape")


CONTRAST = """names => {
    const part = document.body.appendChild(document.createElement("div"));
    const light = name => {
        part.style.color = `var(--${name})`;
        const parts = getComputedStyle(part).color.match(/[\\d.]+/g).slice(0, 3).map(value => value / 255);
        const [r, g, b] = parts.map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const [low, high] = names.map(light).sort((one, other) => one - other);
    return (high + 0.05) / (low + 0.05);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_enough_contrast(page: Path, look: Look, scheme: str) -> None:
    tab = look(page, color_scheme=scheme)
    grounds = {
        "text": ("ground", "surface", "faint", "mark"),
        "muted": ("ground", "surface", "sunken", "faint"),
        "accent": ("ground", "surface", "faint"),
        "error": ("surface", "ground"),
    }
    pairs = [[text, ground] for text, others in grounds.items() for ground in others]
    assert [pair for pair in pairs if tab.evaluate(CONTRAST, pair) < 4.5] == []


def test_pages_with_hardly_anything_to_show_open_too(tmp_path: Path, look: Look) -> None:
    tab = look(written(tmp_path / "none.html"))
    assert count(tab) == "0 images" and tab.get_by_text("Nothing matches.").is_visible()
    tab.get_by_role("searchbox").press("Enter")
    tab = look(written(tmp_path / "names.html", {}, {}))
    assert count(tab) == "2 images" and names(tab) == ["0.jpg", "1.jpg"]
    assert not tab.locator("#panel").is_visible()
    tab.locator(".card").first.click()
    assert tab.locator("#lightbox-name").inner_text() == "0.jpg"
    rows = [Row(n, f"{n}.jpg", columns={"caption": "a"}) for n in range(2)]
    write_report(rows, ReportSettings(tmp_path / "bare.html", thumbnail=0, quiet=True), "bare", {})
    tab = look(tmp_path / "bare.html")
    assert tab.locator(".card").first.bounding_box()["height"] < 140, "no room is left for pictures"
