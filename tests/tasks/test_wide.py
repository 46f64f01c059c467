"""vqa --wide: a row for each image, a column for each question."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from blip2cli.errors import UsageError
from blip2cli.inputs import ColumnChoice, open_source
from blip2cli.tasks.wide import named_questions
from tests.conftest import Typed

Run = Callable[..., Typed]
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
ASKED = ("-p", "shape=what shape is it?", "-p", "is there a circle?")
FORMATS = ("o.jsonl", "o.csv", "o.parquet", "o.arrow", "shards")


@pytest.fixture
def photos(tmp_path: Path) -> str:
    for name in ("red-circle", "teal-triangle"):
        shutil.copy(EXAMPLES / f"{name}.png", tmp_path)
    (tmp_path / "m.csv").write_text("image,id\nred-circle.png,1\ngone.png,2\nteal-triangle.png,3\n")
    return "m.csv"


def rows(out: str) -> list[dict]:
    parts = open_source([out], ColumnChoice(image="image")).parts
    return [dict(record) for part in parts for record in part.records() if record]


def test_an_image_is_a_row_and_a_question_a_column(typed: Run, photos: str) -> None:
    ran = typed("vqa", photos, *ASKED, "--wide", "--workers", 0)
    assert ran.code == 3
    assert ran.rows[0] == {
        "image": "red-circle.png", "id": "1", "shape": "circle", "is_there_a_circle": "yes", "error": None
    }  # fmt: skip
    assert ran.rows[1]["shape"] is None and ran.rows[1]["error"].startswith("missing: ")
    assert [row["shape"] for row in ran.rows] == ["circle", None, "triangle"]


def test_answers_are_those_of_a_row_for_each_question(typed: Run, photos: str) -> None:
    words = ["vqa", photos, "--scores", "--workers", 0, "--dtype", "fp32"]
    wide = typed(*words, *ASKED, "--wide").rows
    narrow = typed(*words, "-p", "what shape is it?", "-p", "is there a circle?").rows
    assert list(wide[0])[2:] == [
        "shape", "shape_logprob", "shape_probability",
        "is_there_a_circle", "is_there_a_circle_logprob", "is_there_a_circle_probability", "error",
    ]  # fmt: skip
    for number, name in ((0, "shape"), (1, "is_there_a_circle")):
        for column, beside in (("answer", ""), ("logprob", "_logprob"), ("probability", "_probability")):
            assert [row[name + beside] for row in wide] == [row[column] for row in narrow[number::2]]


def test_choices_have_their_probabilities_beside_them(typed: Run, photos: str) -> None:
    row = typed("vqa", photos, "-p", "red=is there a circle?", "--wide", "--choices", "yes,no", "--limit", 1).rows[0]
    assert row["red"] == "yes" and row["red_probability"] == max(row["red_probabilities"])


@pytest.mark.parametrize("out", FORMATS)
def test_all_formats_resume_update_and_retry(typed: Run, photos: str, out: str) -> None:
    words = ["vqa", photos, *ASKED, "--wide", "--scores", "--workers", 0, "--out", out]
    assert typed(*words, "--limit", 2).code == 3
    assert typed(*words, "--resume").code == 3
    shutil.copy(EXAMPLES / "red-circle.png", "gone.png")
    assert typed(*words, "--resume", "--retry-errors").code == 0
    Path("m.csv").write_text("image,id\nteal-triangle.png,0\n" + Path("m.csv").read_text().partition("\n")[2])
    Path("m.csv").write_text(Path("m.csv").read_text().replace("teal-triangle.png,0", "./teal-triangle.png,0"))
    assert typed(*words, "--update").err.startswith("1 row to ")
    assert [row["shape"] for row in rows(out)] == ["circle", "circle", "triangle", "triangle"]
    refused = typed(*words[:-2], "--out", out, "--resume", "-p", "blue=is it blue?")
    assert refused.code == 2 and "was started with other settings" in refused.err


def test_an_answer_that_failed_leaves_the_others(typed: Run, photos: str) -> None:
    Path("m.jsonl").write_text('{"image": "red-circle.png", "what": null}\n{"image": "red-circle.png", "what": "x"}\n')
    ran = typed("vqa", "m.jsonl", "-p", "a={what} of it?", "-p", "b=is there a circle?", "--wide", "--workers", 0)
    first, second = ran.rows
    assert (first["a"], first["b"], first["error"]) == (None, "yes", "missing: a: column what is empty")
    assert second["a"] is not None and second["error"] is None


def test_a_file_of_questions_names_columns_too(typed: Run, photos: str) -> None:
    Path("q.txt").write_text("shape=what shape is it?\nIs there a circle ?\n")
    row = typed("vqa", photos, "--questions", "q.txt", "--wide", "--limit", 1).rows[0]
    assert list(row) == ["image", "id", "shape", "is_there_a_circle", "error"]


def test_a_column_of_the_input_keeps_its_values(typed: Run, photos: str) -> None:
    row = typed("vqa", photos, "-p", "id=what shape is it?", "--wide", "--limit", 1).rows[0]
    assert (row["input_id"], row["id"]) == ("1", "circle")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("is it red?", "Is it red"), "'is it red?' and 'Is it red' would have the same column, is_it_red"),
        (("a=x?", "a=y?"), "'x?' and 'y?' would have the same column, a"),
        (("a=x?", "a_probability=y?"), "would have the same column, a_probability"),
        (("image=what is it?",), "a question cannot have the column image"),
        (("error?",), "a question cannot have the column error"),
        (("?!",), "no column can be named after the question '?!'"),
    ],
)
def test_names_that_clash_are_refused(texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        named_questions(texts, ["_probability"])
    assert message in refused.value.message and refused.value.hint.startswith("Name it: -p ")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("is-red=is it red?", 'Use letters, digits and underscores, for example -p is_red="is it red?".'),
        ("1st=is it red?", 'Use letters, digits and underscores, for example -p question_1st="is it red?".'),
        ("=is it red?", 'Use letters, digits and underscores, for example -p answer="is it red?".'),
        ("people=", 'Name it: -p people="how many people?"'),
        ("people=  ", 'Name it: -p people="how many people?"'),
    ],
)
def test_a_wrong_name_is_not_asked_as_part_of_the_question(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        named_questions([text], [])
    assert refused.value.hint == hint


def test_names_may_have_the_letters_of_any_language() -> None:
    questions = named_questions(["größe=how big?", "रंग=what colour?", "é=what?"], [])
    assert [question.name for question in questions] == ["größe", "रंग", "é"]
    assert [question.template.text for question in questions] == ["how big?", "what colour?", "what?"]


def test_names_are_made_of_the_words_of_questions() -> None:
    texts = ("How many people are there?", "¿Qué hay aquí?", "2 dogs?", "is 1+1=2 written?", "a" * 90, "n=a=b")
    names = [question.name for question in named_questions(texts, [])]
    assert names == ["how_many_people_are_there", "qué_hay_aquí", "question_2_dogs", "is_1_1_2_written", "a" * 60, "n"]


def test_what_does_not_go_with_it_is_refused(typed: Run, photos: str) -> None:
    Path("q.jsonl").write_text(json.dumps({"image": "red-circle.png", "question": "x?", "question_id": 1}) + "\n")
    for words, message in (
        (("q.jsonl", "--wide"), "--wide needs questions for all images"),
        (("q.jsonl", "--wide", "-p", "a=b?", "--out", "r.json", "--format", "vqa"), "--format vqa holds one answer"),
    ):
        ran = typed("vqa", *words)
        assert ran.code == 2 and ran.err.startswith(f"blip2: {message}") and ran.err.count("\n") == 2
