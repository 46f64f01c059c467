"""What a report holds, whatever the results' format, and what it leaves out."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2cli.commands.pages.bounds import MOST_LETTERS
from blip2cli.commands.pages.html import digest
from blip2cli.commands.report.page import embedded, packed
from blip2cli.commands.report.table import MOST_COLUMNS, table_of
from blip2cli.records import Row
from tests.commands.report.pages import (
    CIRCLE,
    EXAMPLES,
    PAGE,
    Elements,
    Run,
    column,
    data_of,
    reported,
    results,
    thumbnails_of,
)

LINE = "\u2028"


@pytest.mark.parametrize("out", ["o.jsonl", "o.parquet", "o.csv", "o.arrow", "shards"])
def test_the_page_is_the_same_for_every_format(typed: Run, out: str) -> None:
    shutil.copytree(EXAMPLES, "photos")
    Path("photos/bad.png").write_text("junk")
    words = ("photos", "-p", "what shape is red?", "-p", "how many shapes are there?", "--scores", "--out", out)
    assert typed("vqa", *words, *(("--shard-size", 7) if out == "shards" else ())).code == 3
    ran = typed("report", out)
    assert ran.code == 0
    assert ran.err.startswith("gallery.html: 26 rows, 2 with errors, 24 with thumbnails, 0.1 MB")
    data = data_of(PAGE)
    assert data["names"][:2] == ["photos/bad.png", "photos/blue-circle.png"] and data["cards"][:3] == [0, 0, 1]
    assert data["errors"] == dict.fromkeys("01", "unsupported: not an image in a known format")
    assert {field["name"]: field["kind"] for field in data["fields"]} == {
        "question": "text", "answer": "text", "logprob": "number", "probability": "number",
    }  # fmt: skip
    assert column(PAGE, "question")[:2] == ["what shape is red?", "how many shapes are there?"]
    assert column(PAGE, "answer")[:4] == [None, None, "circle", "1"]
    assert column(PAGE, "logprob")[0] is None and -0.1 < column(PAGE, "logprob")[2] < 0
    assert len(thumbnails_of(PAGE)) == 12 and data["places"] == [-1, *range(12)]
    told = " ".join(Elements(PAGE).all("dd", dir="auto"))
    assert "tiny" in told and "what shape is red?\nhow many shapes are there?" in told, "the run's settings"


def test_columns_of_other_commands_are_texts_and_scores(typed: Run) -> None:
    rows = [{"image": str(CIRCLE), "text": f"text {n}", "itc": n / 10, "itm": 0.5, "rank": n, "id": 7} for n in (1, 2)]
    data = reported(typed, results("match.jsonl", *rows))
    named = [field["name"] for field in data["fields"]]
    assert [named[at] for at in data["answers"]] == ["text"] and data["question"] is None
    assert [named[at] for at in data["numbers"]] == ["rank", "itm", "itc", "id"]


def test_lists_tensors_and_values_of_any_kind_are_shown(typed: Run) -> None:
    rows = [
        {"image": "a.jpg", "captions": ["a", "b"], "logprobs": [-1, -2.5], "features": [0.5] * 100, "big": 2**60},
        {"image": "b.jpg", "captions": ["c"], "nested": {"x": [1]}, "flag": True, "mixed": 3},
        {"image": "c.jpg", "captions": None, "flag": None, "mixed": "three"},
    ]
    reported(typed, results("o.jsonl", *rows))
    assert column(PAGE, "captions") == [["a", "b"], ["c"], None]
    assert column(PAGE, "logprobs") == [["-1", "-2.5"], None, None]
    assert column(PAGE, "features") == ["100 numbers", None, None]
    assert column(PAGE, "big") == [str(2**60), None, None]
    assert column(PAGE, "nested")[1] == '{"x": [1]}' and column(PAGE, "flag")[1] == "true"
    assert column(PAGE, "mixed") == [None, "3", "three"]
    typed("embed", CIRCLE, "--out", "f.parquet")
    reported(typed, "f.parquet")
    assert column(PAGE, "features") == ["8 × 128 float32"]


def test_answers_that_are_numbers_stay_text_and_csv_has_numbers_and_lists(typed: Run) -> None:
    Path("o.csv").write_text('image,answer,score,code,captions\na.jpg,2,0.5,007,"[""x"", ""y""]"\nb.jpg,3,,008,\n')
    reported(typed, "o.csv")
    assert column(PAGE, "answer") == ["2", "3"] and column(PAGE, "score") == [0.5, None]
    assert column(PAGE, "code") == ["007", "008"] and column(PAGE, "captions")[0] == ["x", "y"]


def test_what_is_no_number_in_json_is_left_out_and_long_cells_are_cut() -> None:
    rows = [Row(0, "a", columns={"score": float("nan"), "answer": "x" * 10_000}), Row(1, "b", columns={"score": 1.5})]
    table = table_of(rows, 10)
    assert {one.name: one.values for one in table.fields}["score"] == [None, 1.5]
    assert len({one.name: one.values for one in table.fields}["answer"][0]) == MOST_LETTERS  # type: ignore[arg-type]


def test_lines_that_cannot_be_read_are_rows_with_errors(typed: Run) -> None:
    Path("o.jsonl").write_text(f'{{"image": "{CIRCLE}", "caption": "a red circle", "error": null}}\n{{"image": "to\n')
    data = reported(typed, "o.jsonl")
    assert data["names"][1] == "o.jsonl#1" and data["errors"] == {"1": "unreadable: line 2 is not a JSON object"}


def test_rows_of_several_files_say_which_they_are_from(typed: Run) -> None:
    names = [results(f"{who}.jsonl", {"image": str(CIRCLE), "caption": who}) for who in ("one", "two")]
    Path("broken.jsonl").write_text(f'{{"image": "{CIRCLE}", "caption": "x"}}\n{{"image": "to\n')
    data = reported(typed, *names, "broken.jsonl")
    assert column(PAGE, "results file") == ["one.jsonl", "two.jsonl", "broken.jsonl", "broken.jsonl"]
    assert data["cards"] == [0, 0, 0, 1] and data["names"] == [str(CIRCLE), "broken.jsonl#1"], "an image is one card"
    assert data["errors"] == {"3": "unreadable: line 2 is not a JSON object"}
    reported(typed, names[0])
    assert [field["name"] for field in data_of(PAGE)["fields"]] == ["caption"]


def test_what_a_search_found_is_a_card_each(typed: Run) -> None:
    rows = [{"image": "a.png", "query": query, "rank": 1, "itc": 0.5} for query in ("a dog", "a cat")]
    assert reported(typed, results("s.jsonl", *rows))["names"] == ["a.png", "a.png"]


def test_columns_of_answers_have_their_scores_beside_them(typed: Run) -> None:
    row = {"image": "a.png", "id": 3, "note": "x", "people": "2", "people_probability": 0.5, "sky": "blue"}
    data = reported(typed, results("w.jsonl", {**row, "sky_probability": 0.75}))
    named = [field["name"] for field in data["fields"]]
    assert [named[at] for at in data["answers"]] == ["people", "sky"]
    assert [[named[at] for at in some] for some in data["scores"]] == [["people_probability"], ["sky_probability"]]
    data = reported(typed, results("w.jsonl", {name: row[name] for name in ("image", "id", "people", "sky")}))
    named = [field["name"] for field in data["fields"]]
    assert [named[at] for at in data["answers"]] == ["people", "sky"], "text, though it may be a number"
    assert data["scores"] == [[], []]


def test_columns_and_their_names_are_bounded() -> None:
    rows = [Row(n, f"{n}.jpg", columns={f"{n} {'x' * 5000}": n, "same": "s"}) for n in range(300)]
    table = table_of(rows, 1000)
    assert len(table.fields) == MOST_COLUMNS and table.columns_left_out
    assert len(packed(table.fields[0])["name"]) == MOST_LETTERS


# ---- bounds ----


def test_what_has_no_room_is_left_out_and_said(typed: Run) -> None:
    typed("caption", EXAMPLES, "--out", "o.jsonl")
    ran = typed("report", "o.jsonl", "--limit", 9, "--thumbnails-mb", 0.01)
    shown = len(thumbnails_of(PAGE))
    assert 0 < shown < 9 and sum(map(len, thumbnails_of(PAGE))) <= 10_000
    rows = "The first 9 of 12 rows are shown (--limit 9)."
    bare = f"{9 - shown} images are shown without thumbnails, because the limit was reached (--thumbnails-mb 0.01)."
    assert ran.err.splitlines()[1:] == [f"  {rows}", f"  {bare}"]
    assert Elements(PAGE).all("p", **{"class": "note"})[-2:] == [rows, bare]
    assert data_of(PAGE)["places"] == [*range(shown), *[-1] * (9 - shown)]


def test_a_page_that_is_there_is_replaced_only_if_asked(typed: Run) -> None:
    name = results("o.jsonl", {"image": str(CIRCLE), "caption": "a red circle"})
    PAGE.write_text("mine")
    ran = typed("report", name)
    assert ran.code == 2 and PAGE.read_text() == "mine"
    assert ran.err == "blip2: gallery.html exists\n       Use --overwrite to replace it, or choose another name.\n"
    assert typed("report", name, "--overwrite", "--quiet").err == ""
    assert column(PAGE, "caption") == ["a red circle"]
    assert typed("report", name, "--out", ".").code == 2 and typed("report", name, "--out", "no/x.html").code == 2
    assert sorted(path.name for path in Path().iterdir()) == ["gallery.html", "o.jsonl"]


def test_results_that_are_not_there_or_not_about_images_are_told(typed: Run) -> None:
    PAGE.write_text("mine")
    assert typed("report", "gone.jsonl").err.startswith("blip2: no such input: gone.jsonl\n")
    PAGE.unlink()
    assert typed("report", "gone.jsonl").code == 2
    pq.write_table(pa.table({"image": pa.array([], pa.string())}), "none.parquet")
    assert typed("report", "none.parquet", "--out", "none.html").err.startswith("none.html: 0 rows, ")
    assert "has no image column" in typed("report", results("o.jsonl", {"x": 1})).err
    assert not PAGE.exists()


# ---- safety ----


def test_data_cannot_leave_their_script_element() -> None:
    value = {"</script><!--": ["<script>", "\u2028\u2029", "\x00\ud83d", "&amp;"]}
    text = embedded(value)
    assert not {"<", "\u2028", "\u2029"} & set(text)
    assert json.loads(text) == value


def test_the_page_has_its_own_scripts_and_styles_only_and_a_policy_that_says_so(typed: Run) -> None:
    evil = f"</script><script>alert(1)</script><style>{LINE}"
    reported(typed, results("o.jsonl", {"image": f"{evil}.png", "caption": evil, evil: evil, "error": evil}))
    page = Elements(PAGE)
    (script,) = [
        text for (tag, given), text in zip(page.started, page.texts, strict=True) if (tag, given) == ("script", {})
    ]
    (style,) = page.all("style")
    assert len(page.all("script")) == 2
    assert not any(name in given for _, given in page.started for name in ("style", "onclick", "onerror", "onload"))
    (policy,) = (given["content"] or "" for _, given in page.started if given.get("http-equiv"))
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data: file:"
    assert rules["script-src"] == digest(script) and rules["style-src"] == digest(style)
    assert "http://" not in script.replace("http://www.w3.org/2000/svg", "") and "https://" not in script + style


def test_numbers_that_javascript_has_no_room_for_are_shown(typed: Run) -> None:
    Path("o.csv").write_text("image,caption,size,error\na.png,a,1e999,\nb.png,b,2,\n")
    reported(typed, "o.csv")
    assert column(PAGE, "size") == ["1e999", "2"]
    huge = 10**400
    name = results("o.jsonl", {"image": "a.png", "caption": "a", "n": huge, "error": None})
    reported(typed, name)
    assert column(PAGE, "n") == [str(huge)]
