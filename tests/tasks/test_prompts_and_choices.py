"""Columns in prompts, several prompts, prefix and suffix, scores and choices, as a user types them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from blip2cli import Blip2
from blip2cli.errors import UsageError
from blip2cli.tasks.caption import joined
from blip2cli.tasks.template import texts_in_file
from tests.conftest import Typed

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
Run = Callable[..., Typed]
CIRCLE, TRIANGLE = EXAMPLES / "red-circle.png", EXAMPLES / "teal-triangle.png"


def manifest(*rows: dict[str, Any]) -> str:
    Path("m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "m.jsonl"


def test_columns_are_filled_into_prompts_as_text(typed: Run) -> None:
    name = manifest({"image": str(CIRCLE), "what": "a {x} </s>"}, {"image": str(CIRCLE), "what": None})
    ran = typed("caption", name, "-p", "{what} {{y}}", "-p", "a")
    assert [(row["prompt"], row["error"]) for row in ran.rows] == [
        ("a {x} </s> {y}", None),
        ("a", None),
        (None, "missing: column what is empty"),
        ("a", None),
    ]
    assert ran.rows[1]["caption"] == "red circle"


@pytest.mark.parametrize("column", ["a.en", "{a[0]:b!r}"])
def test_an_option_that_names_a_column_takes_any_name(typed: Run, column: str) -> None:
    name = manifest({"image": str(CIRCLE), column: '["red", "blue"]'}, {"image": str(CIRCLE), column: [["red"]]})
    asked = typed("vqa", name, "-p", "what color is the circle?", "--choices-column", column).rows
    assert asked[0]["answer"] == "red" and len(asked[0]["probabilities"]) == 2
    assert asked[1]["error"] == f"unsupported: column {column} holds a list, not a text"
    assert typed("caption", name, "--prompt-column", column).rows[1]["error"] == asked[1]["error"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("caption", "-p", "{gone}"), "--prompt uses column gone, which the input does not have"),
        (("caption", "-p", "{what.real}"), "only column names may be in braces"),
        (("caption", "-p", "{what:>9}"), "only column names may be in braces"),
        (("caption", "-p", "a {"), "--prompt 'a {': "),
        (("caption", "--suffix", "{gone}"), "--suffix uses column gone"),
        (("caption", "--prompt-column", "gone"), "--prompt-column uses column gone"),
        (("caption", "--prompt-column", "what", "-p", "a"), "--prompt-column cannot be used with --prompt"),
        (("caption", "--prompts", "gone.txt"), "cannot read --prompts gone.txt: No such file"),
        (("vqa", "-p", "a", "--choices", "yes"), "--choices yes: at least two choices are needed"),
        (("vqa", "-p", "a", "--choices", "yes,"), "--choices yes,: a choice is empty"),
        (("vqa", "-p", "a", "--choices", "a,a"), "--choices a,a: a choice is repeated"),
        (("vqa", "-p", "a", "--choices", "a,b", "--num-beams", 2), "choices cannot be used with --num-beams"),
        (("vqa", "-p", "a", "--choices-column", "gone"), "--choices-column uses column gone"),
    ],
)
def test_what_cannot_be_filled_is_told_before_anything_runs(typed: Run, words: tuple[Any, ...], told: str) -> None:
    task, *options = words
    ran = typed(task, manifest({"image": str(CIRCLE), "what": "x"}), *options)
    assert ran.code == 2 and told in ran.err and ran.err.count("\n") == 2


@pytest.mark.parametrize("name", ["q.csv", "q.TSV", "q.jsonl", "q.json", "q.parquet"])
@pytest.mark.parametrize("option", ["--questions", "--prompts", "--texts"])
def test_the_lines_of_a_table_are_not_taken_for_texts(tmp_path: Path, name: str, option: str) -> None:
    table = tmp_path / name
    table.write_text("image,question\na.png,what shape is this?\n")
    with pytest.raises(UsageError) as refused:
        texts_in_file(option, table)
    assert refused.value.message == f"{option} {table} is not a text file"
    assert "A table with images and texts is an INPUT" in refused.value.hint


def test_prompts_from_a_file_and_from_a_column(typed: Run) -> None:
    Path("p.txt").write_text("a\n\na red\n")
    ran = typed("caption", CIRCLE, "--prompts", "p.txt")
    assert [(row["prompt"], row["caption"]) for row in ran.rows] == [("a", "red circle"), ("a red", "circle")]
    name = manifest({"image": str(CIRCLE), "p": "a"}, {"image": str(TRIANGLE), "p": ""})
    ran = typed("caption", name, "--prompt-column", "p")
    assert [(row["caption"], row["error"]) for row in ran.rows] == [
        ("red circle", None),
        (None, "missing: column p is empty"),
    ]


def test_prefix_and_suffix_stand_around_captions(typed: Run) -> None:
    name = manifest({"image": str(CIRCLE), "style": "{p}"}, {"image": str(CIRCLE)})
    ran = typed("caption", name, "--prefix", "ohwx, ", "--suffix", ", {style} style")
    assert [(row["caption"], row["error"]) for row in ran.rows] == [
        ("ohwx, a red circle, {p} style", None),
        (None, "missing: column style is empty"),
    ]
    ran = typed("caption", CIRCLE, "--prefix", "x ", "--num-captions", 2, "--num-beams", 2)
    assert all(caption.startswith("x ") for caption in ran.rows[0]["captions"])


def test_a_space_keeps_words_around_a_caption_apart(typed: Run) -> None:
    name = manifest({"image": str(CIRCLE), "style": "oil"})
    for prefix, suffix, caption in (
        ("sks", "in {style}", "sks a red circle in oil"),
        ("sks,", ", {style}", "sks,a red circle, oil"),
        ("{style}", "", "oil a red circle"),
        ("sks ", "-x", "sks a red circle-x"),
    ):
        (row,) = typed("caption", name, "--prefix", prefix, "--suffix", suffix).rows
        assert row["caption"] == caption
    assert joined("sks", "", "x") == "sks x" and joined("", "", "") == ""


def test_questions_and_templates_hold_columns(typed: Run) -> None:
    name = manifest({"image": str(CIRCLE), "what": "shape"})
    ran = typed("vqa", name, "-p", "what {what} is it?", "--template", "Question: {} Answer:")
    assert [(row["question"], row["answer"]) for row in ran.rows] == [("what shape is it?", "circle")]
    ran = typed("vqa", name, "-p", "is it?", "--template", "Question: what {what} {} Answer:")
    assert ran.rows[0]["answer"] == "circle"


def test_scores(typed: Run) -> None:
    ran = typed("caption", CIRCLE, "bad.png", "--scores", "--out", "o.parquet")
    assert ran.code == 2
    Path("bad.png").touch()
    assert typed("caption", CIRCLE, "bad.png", "--scores", "--out", "o.parquet").code == 3
    good, bad = pq.read_table("o.parquet").to_pylist()
    assert -0.5 < good["logprob"] <= 0 and 0.1 < good["probability"] <= 1
    assert (bad["logprob"], bad["probability"]) == (None, None)
    ran = typed("caption", CIRCLE, "--scores", "--num-captions", 2, "--num-beams", 3)
    assert ran.rows[0]["probabilities"][0] > ran.rows[0]["probabilities"][1] and len(ran.rows[0]["logprobs"]) == 2


def test_choices_are_ranked(typed: Run) -> None:
    ran = typed("vqa", CIRCLE, TRIANGLE, "-p", "what shape is it?", "-p", "what colour is it?", "--choices",
                "circle,triangle,red,teal", "--out", "o.parquet")  # fmt: skip
    assert ran.code == 0
    rows = pq.read_table("o.parquet").to_pylist()
    assert [row["answer"] for row in rows] == ["circle", "red", "triangle", "teal"]
    for row in rows:
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-4) and len(row["probabilities"]) == 4
        assert row["probability"] == max(row["probabilities"]) > 0.5


def test_choices_of_each_row(typed: Run) -> None:
    name = manifest(
        {"image": str(CIRCLE), "question": "what colour is it?", "from": ["red", "blue"]},
        {"image": str(CIRCLE), "question": "what shape is it?", "from": "triangle, circle"},
        {"image": str(CIRCLE), "question": "what shape is it?", "from": None},
        {"image": str(CIRCLE), "question": "what shape is it?", "from": ["circle"]},
    )
    ran = typed("vqa", name, "--choices-column", "from")
    assert [(row["answer"], row["error"]) for row in ran.rows] == [
        ("red", None),
        ("circle", None),
        (None, "missing: column from is empty"),
        (None, "unsupported: at least two choices are needed"),
    ]


def test_choices_and_scores_in_python() -> None:
    model = Blip2("tiny", dtype="fp32")
    (row,) = model.answer([CIRCLE], "what {shape} is it?", choices=["circle", "triangle"])
    assert row["question"] == "what {shape} is it?" and row["answer"] == "circle"
    (row,) = model.answer([CIRCLE], "what shape is it?", choices=["circle", "a, b", 'say "x"'])
    assert row["answer"] == "circle" and len(row["probabilities"]) == 3
    (row,) = model.caption([CIRCLE], scores=True)
    assert row["caption"] == "a red circle" and row["probability"] > 0.1
