"""The page as somebody uses it, in a headless browser."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from blip2cli.commands.report import write_report
from blip2cli.commands.report.options import ReportSettings
from blip2cli.records import ImageRef, Row
from tests.commands.report.pages import (
    EVIL,
    ROWS,
    columns_of,
    count,
    encoded,
    focused,
    labels,
    names,
    press,
    row_of,
)

Look = Callable[..., Any]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "gallery.html"
    rows = [row_of(number) for number in range(ROWS)]
    write_report(rows, ReportSettings(out, quiet=True), "answers.jsonl", {"answers.jsonl": {"task": "vqa"}})
    return out


def test_search_shows_the_rows_with_all_the_words_at_once(page: Path, look: Look) -> None:
    tab = look(page)
    assert count(tab) == "600 images"
    search = tab.get_by_role("searchbox", name="Search")
    search.press_sequentially("N12")
    assert count(tab) == "10 of 600 images"  # 12, and 120 to 129 save 127, which is an error
    assert names(tab) == ["photos/0012.jpg", "photos/0120.jpg", "photos/0121.jpg"]
    assert tab.locator("mark").first.inner_text() == "n12"
    search.fill("more CAFE 0125")
    assert names(tab) == ["photos/0125.jpg"] and count(tab) == "1 of 600 images"
    search.fill("nothing like it")
    assert tab.get_by_text("Nothing matches.").is_visible() and count(tab) == "0 of 600 images"
    search.press("Escape")
    assert search.input_value() == "" and count(tab) == "600 images"


def test_images_are_filtered_by_error_by_its_kind_and_by_question(page: Path, look: Look) -> None:
    tab = look(page)
    assert labels(tab, "Errors") == ["no error 540", "missing 30", "empty 30"]
    press(tab, "Errors", "no error")
    assert count(tab) == "540 of 600 images"
    press(tab, "Errors", "no error")
    press(tab, "Errors", "missing")
    assert count(tab) == "30 of 600 images" and names(tab) == [f"photos/{n:04}.jpg" for n in (7, 27, 47)]
    assert tab.locator(".card .answer").first.inner_text() == "missing: no such file"
    press(tab, "Errors", "empty")
    assert count(tab) == "60 of 600 images", "either of the kinds"
    tab.get_by_role("button", name="Show all").click()
    tab.get_by_label("Question", exact=True).select_option("is it a café? (300)")
    assert count(tab) == "300 of 600 images" and names(tab, 2) == ["photos/0001.jpg", "photos/0003.jpg"]
    assert labels(tab, "Errors") == ["no error 240", "missing 30", "empty 30"], "counts follow the other filters"
    press(tab, "Errors", "missing")
    assert count(tab) == "30 of 600 images"


def test_rows_are_sorted_either_way_and_those_without_a_score_come_last(page: Path, look: Look) -> None:
    tab = look(page)
    scores = [((number * 37) % ROWS, number) for number in range(ROWS) if number % 10 != 7]
    tab.get_by_label("Sort by").select_option("Score")
    assert names(tab) == [f"photos/{number:04}.jpg" for _, number in sorted(scores, reverse=True)[:3]]
    turn = tab.get_by_role("button", name="Descending")
    assert turn.get_attribute("aria-pressed") == "true"
    turn.click()
    assert names(tab) == [f"photos/{number:04}.jpg" for _, number in sorted(scores)[:3]]
    tab.get_by_role("searchbox").press("Enter")
    tab.keyboard.press("End")
    assert focused(tab) == ROWS
    assert tab.locator(":focus .answer").inner_text() == "empty: 0 bytes"
    tab.get_by_label("Sort by").select_option("Input order")
    assert names(tab, 1) == ["photos/0000.jpg"]
    turn.click()
    assert names(tab, 1) == ["photos/0599.jpg"]


def test_all_can_be_done_with_the_keyboard(page: Path, look: Look) -> None:
    tab = look(page)
    tab.keyboard.press("/")
    assert tab.evaluate("document.activeElement.id") == "search"
    tab.keyboard.type("numbered")
    tab.keyboard.press("Enter")
    assert focused(tab) == 1
    columns = tab.evaluate("columns")
    places = []
    for key in ("ArrowRight", "ArrowDown", "ArrowUp", "ArrowLeft", "PageDown", "PageUp", "End", "ArrowRight", "Home"):
        tab.keyboard.press(key)
        places.append(focused(tab))
    assert columns > 1
    assert places[:4] == [2, 2 + columns, 2, 1]
    assert places[4] > columns and places[5:] == [1, 540, 540, 1]
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Enter")
    detail = tab.get_by_role("dialog")
    assert detail.get_by_role("heading").inner_text() == "photos/0001.jpg"
    assert tab.evaluate("document.activeElement.id") == "lightbox-name"
    tab.keyboard.press("ArrowRight")
    assert detail.get_by_role("heading").inner_text() == "photos/0002.jpg"
    assert "3 of 540 images" in detail.inner_text() and "a thing numbered n2 and more and more" in detail.inner_text()
    detail.get_by_role("button", name="Next").focus()
    tab.keyboard.press("Enter")
    tab.keyboard.press("Enter")
    assert detail.get_by_role("heading").inner_text() == "photos/0004.jpg", "the button keeps the focus"
    tab.keyboard.press("Escape")
    expect(tab.locator(":focus")).to_have_attribute("aria-posinset", "5", timeout=60_000)
    assert not detail.is_visible()


def test_a_focused_card_that_is_scrolled_away_is_found_again(page: Path, look: Look) -> None:
    tab = look(page)
    tab.get_by_role("searchbox").press("Enter")
    tab.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    tab.wait_for_selector("[aria-posinset='600']")
    assert focused(tab) == 0
    tab.keyboard.press("ArrowRight")
    assert focused(tab) == 2 and tab.locator(":focus").is_visible()


def test_only_the_cards_near_the_window_are_in_the_document(page: Path, look: Look) -> None:
    tab = look(page)
    assert 0 < tab.locator(".card").count() < 120
    tab.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    last = tab.locator("[aria-posinset='600']")
    last.wait_for()
    assert last.locator(".name").inner_text() == "photos/0599.jpg"
    assert last.get_attribute("aria-setsize") == "600" and tab.locator(".card").count() < 120
    assert last.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 40


def test_ten_thousand_rows_stay_quick(tmp_path: Path, look: Look) -> None:
    rows = [Row(n, f"{n}.jpg", columns={**columns_of(n), "question": f"question {n}"}) for n in range(10_000)]
    settings = ReportSettings(tmp_path / "many.html", thumbnail=0, quiet=True)
    write_report(rows, settings, "many", {})
    tab = look(settings.out)
    took = "() => { const began = performance.now(); update(); return performance.now() - began; }"
    tab.get_by_role("searchbox").fill("n99")
    assert count(tab) == "100 of 10,000 images"
    assert tab.evaluate(took) < 1000, "some 20 ms on a machine with nothing else to do"
    tab.get_by_role("searchbox").fill("")
    assert tab.evaluate(took) < 1000 and tab.locator(".card").count() < 200
    assert tab.get_by_label("Question", exact=True).locator("option").count() == 202
    tab.get_by_role("searchbox").press("Enter")
    tab.keyboard.press("End")
    assert focused(tab) == 10_000


def test_screen_readers_find_landmarks_names_and_pictures(page: Path, look: Look) -> None:
    tab = look(page)
    for landmark in ("banner", "search", "main", "contentinfo"):
        assert tab.get_by_role(landmark).count() == 1, landmark
    assert tab.get_by_role("heading", level=1).inner_text() == "answers.jsonl"
    card = tab.get_by_role("feed").get_by_role("article", name="what is it? a thing numbered n0", exact=True)
    assert card.get_by_role("img", name="Image photos/0000.jpg").count() == 1
    assert tab.locator("#count").get_attribute("aria-live") == "polite"
    nameless = "control => !control.labels.length && !control.ariaLabel"
    assert tab.evaluate(f"[...document.querySelectorAll('input, select')].filter({nameless}).length") == 0
    assert tab.locator(".card[tabindex='0']").count() == 1


def test_histograms_tell_their_numbers_in_words_and_follow_the_filters(page: Path, look: Look) -> None:
    tab = look(page)
    lengths = tab.get_by_role("img", name="Histogram of Answer length in words")
    assert lengths.get_attribute("aria-label").endswith("540 values: 4 to 8, median 6")
    assert tab.get_by_role("img", name="Histogram of Score").count() == 1
    tab.get_by_role("searchbox").fill("n3")
    label = tab.get_by_role("img", name="Histogram of Score").get_attribute("aria-label")
    assert f"{count(tab).split()[0]} values" in label


def test_several_captions_of_an_image_are_lines_of_its_card(tmp_path: Path, look: Look) -> None:
    captions = [["a dog"], ["a red dog", "an old dog asleep"]]
    rows = [Row(n, f"{n}.jpg", columns={"captions": some, "error": None}) for n, some in enumerate(captions)]
    write_report(rows, ReportSettings(tmp_path / "page.html", quiet=True), "several", {})
    tab = look(tmp_path / "page.html")
    assert tab.locator(".card .answer").all_inner_texts() == ["a dog", "– a red dog\n– an old dog asleep"]
    lengths = tab.get_by_role("img", name="Histogram of Caption length in words, 3 values")
    assert "2 to 4, median 3" in lengths.get_attribute("aria-label")
    tab.get_by_label("Sort by").select_option("Caption length")
    tab.get_by_role("button", name="Descending").click()
    assert names(tab) == ["1.jpg", "0.jpg"]


def test_what_a_search_found_is_filtered_by_query(tmp_path: Path, look: Look) -> None:
    columns = [{"query": query, "rank": rank, "itc": 0.5} for query in ("a dog", "a cat") for rank in (1, 2)]
    rows = [Row(n, f"{n}.jpg", columns=some) for n, some in enumerate(columns)]
    write_report(rows, ReportSettings(tmp_path / "page.html", quiet=True), "search", {})
    tab = look(tmp_path / "page.html")
    assert tab.locator(".card .question").all_inner_texts() == ["a dog", "a dog", "a cat", "a cat"]
    assert tab.locator(".card .answer").count() == 0, "there is no text to leave room for"
    tab.get_by_label("Query", exact=True).select_option("a cat (2)")
    assert names(tab) == ["2.jpg", "3.jpg"] and count(tab) == "2 of 4 results"


def test_light_and_dark_follow_the_system_and_the_button(page: Path, look: Look) -> None:
    def brightness(tab: Any) -> int:
        colour = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(",")))

    light, dark = look(page, color_scheme="light"), look(page, color_scheme="dark")
    assert brightness(light) > 600 and brightness(dark) < 150
    button = light.get_by_role("button", name="Dark")
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    assert brightness(light) < 150 and button.get_attribute("aria-pressed") == "true"
    light.reload()
    expect(light.locator("html")).to_have_attribute("data-theme", "dark", timeout=60_000)
    assert brightness(light) < 150, "it is remembered"


@pytest.mark.parametrize("width", [320, 700, 1280, 2200])
def test_nothing_is_wider_than_the_window_and_no_card_is_cut_off(page: Path, look: Look, width: int) -> None:
    tab = look(page, width)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    over = "card => card.lastElementChild.getBoundingClientRect().bottom - card.getBoundingClientRect().bottom"
    assert tab.locator(".card").first.evaluate(over) <= 0


def test_what_is_printed_is_all_rows_in_the_flow(page: Path, look: Look) -> None:
    tab = look(page)
    tab.emulate_media(media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.locator(".card").count() == ROWS
    assert not tab.get_by_role("searchbox").is_visible()
    assert tab.locator(".card").last.locator("img").evaluate("image => image.complete")
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.locator(".card").count() < 120


def test_what_comes_from_outside_is_text_wherever_it_stands(tmp_path: Path, look: Look) -> None:
    columns = {
        "question": f"who? {EVIL}",
        "answer": f"me {EVIL}",
        "captions": [EVIL, "\u2028\u2029\u202e"],
        EVIL: EVIL,
        "score": 1.5,
    }
    rows = [
        Row(0, f"photos/{EVIL}.jpg", ImageRef(path=f"photos/{EVIL}.jpg"), {**columns, "error": None}),
        Row(1, "\ud83d.jpg", None, {**columns, "question": "why?", "score": 2, "error": f"{EVIL[:25]}: {EVIL}"}),
    ]
    out = tmp_path / "evil.html"
    runs = {EVIL: {"task": EVIL, "model": EVIL, EVIL: [EVIL, EVIL]}, "other": {"x": {EVIL: 1}}}
    write_report(rows, ReportSettings(out, quiet=True), EVIL, runs)
    tab = look(out)
    assert tab.get_by_role("heading", level=1).inner_text() == EVIL
    assert tab.locator(".card .question").first.inner_text() == f"who? {EVIL}"
    assert tab.locator(".card .answer").first.inner_text() == f"me {EVIL}"
    assert tab.locator(".card .name").first.inner_text() == f"photos/{EVIL}.jpg"
    tab.get_by_label("Question", exact=True).select_option(index=1)
    tab.locator(".facet .label:enabled").last.click()
    tab.get_by_role("button", name="Show all").click()
    tab.get_by_role("searchbox").fill("<script>window.pwned")
    assert tab.locator("mark").first.inner_text().lower() == "<script>window.pwned"
    tab.locator(".card").first.click()
    assert tab.get_by_role("dialog").inner_text().count(EVIL) >= 4
    assert tab.evaluate("window.pwned") is None
    assert tab.locator("script").count() == 2 and tab.locator("[onerror]").count() == 0


HOSTILE = (
    "javascript:window.pwned=1",
    "data:text/html,<script>window.pwned=1</script>",
    '" onmouseover="window.pwned=1',
    "'`${window.pwned=1}`",
    "<svg onload=window.pwned=1>",
    "<a href=javascript:window.pwned=1>x</a>",
    "]]><!--",
    "{{ 7*7 }}{% raw %}",
    "&lt;b&gt;&amp;",
    "__proto__",
    "constructor",
    "toString",
    "<base href=//evil.example>",
    "<meta http-equiv=refresh content=0;url=//evil.example>",
    "</style><style>*{display:none}",
    "</title><script>window.pwned=1</script>",
    "\u2028window.pwned=1\u2029",
    "http://evil.example/a.png",
    "file:///etc/passwd",
    "//evil.example/a.png",
    "\\\\evil.example\\a.png",
)


def words(text: str) -> str:
    return " ".join(text.split())


def test_hostile_names_columns_and_urls_do_nothing(tmp_path: Path, look: Look) -> None:
    columns = {**{name: name for name in HOSTILE}, "url": "javascript:window.pwned=1", "error": None}
    rows = [
        Row(n, name, ImageRef(data=encoded((n, 0, 0))), {**columns, "caption": name}) for n, name in enumerate(HOSTILE)
    ]
    out = tmp_path / "hostile.html"
    write_report(rows, ReportSettings(out, quiet=True), HOSTILE[0], {name: {name: name} for name in HOSTILE})
    tab = look(out)
    assert count(tab) == f"{len(HOSTILE)} images"
    assert sorted(map(words, names(tab, len(HOSTILE)))) == sorted(map(words, HOSTILE))
    tab.locator(".card").first.click()
    shown = words(tab.get_by_role("dialog").inner_text())
    assert [name for name in HOSTILE if words(name) not in shown] == []
    targets = "[...document.querySelectorAll('[href], [src], [action]')].map(x => x.href || x.src || x.action)"
    assert {target.partition(",")[0].partition("///")[0] for target in tab.evaluate(targets)} <= {
        "data:image/webp;base64",
        "file:",
    }
    attributes = "[...document.querySelectorAll('*')].flatMap(x => x.getAttributeNames())"
    assert not [name for name in tab.evaluate(attributes) if name.startswith("on")]
    assert tab.evaluate("window.pwned") is None
    assert tab.locator("base, iframe, object, embed").count() == 0


def test_the_page_allows_no_script_but_its_own(page: Path, browser: Any) -> None:
    tab = browser.new_context().new_page()
    refused: list[str] = []
    tab.on("console", lambda message: refused.append(message.text))
    tab.goto(page.as_uri())
    script = """() => {
        try { document.body.innerHTML += "<p>markup</p>" } catch (error) { window.refused = error.name }
        document.body.setAttribute("style", "color: red");
        const image = document.body.appendChild(document.createElement("img"));
        image.src = "https://example.org/a.png";
        return window.refused;
    }"""
    assert tab.evaluate(script) == "TypeError"
    for _ in range(600):
        if len(refused) >= 2:
            break
        tab.wait_for_timeout(100)
    assert any("https://example.org/a.png" in told and "img-src" in told for told in refused), refused
    assert any("inline style" in told for told in refused), refused
    tab.context.close()
