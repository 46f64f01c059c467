"""What each command asks of the model, and which rows come out."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blip2cli.model.blip2 import Blip2Model
from tests.conftest import Typed

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CIRCLE, TRIANGLE = EXAMPLES / "red-circle.png", EXAMPLES / "teal-triangle.png"
Run = Callable[..., Typed]


def test_captions_of_files_folders_and_globs(typed: Run) -> None:
    rows = typed("caption", TRIANGLE, EXAMPLES, f"{EXAMPLES}/red-*.png").rows
    assert [row["caption"] for row in (rows[0], rows[-1])] == ["a teal triangle", "a red circle"]
    assert all(list(row) == ["image", "caption", "error"] and row["error"] is None for row in rows)


def test_a_caption_goes_on_from_its_prompt_which_is_not_echoed(typed: Run) -> None:
    (row,) = typed("caption", CIRCLE, "--prompt", "a photo of").rows
    assert row["caption"] == "a red circle"


def test_every_prompt_is_a_row_and_rows_of_an_image_stand_together(typed: Run) -> None:
    rows = typed("vqa", CIRCLE, TRIANGLE, "-p", "what shape is it?", "--prompt", "is there a circle?").rows
    assert [(row["image"], row["question"], row["answer"]) for row in rows] == [
        (str(CIRCLE), "what shape is it?", "circle"),
        (str(CIRCLE), "is there a circle?", "yes"),
        (str(TRIANGLE), "what shape is it?", "triangle"),
        (str(TRIANGLE), "is there a circle?", "no"),
    ]


def test_questions_from_a_file_come_behind_those_of_the_command_line(typed: Run) -> None:
    Path("q.txt").write_bytes("\ufeffwhat shape is it?\r\n\n  is there a circle?  \n".encode())
    rows = typed("vqa", CIRCLE, "-p", "what colour is it?", "--questions", "q.txt").rows
    assert [row["question"] for row in rows] == ["what colour is it?", "what shape is it?", "is there a circle?"]
    assert [row["answer"] for row in rows] == ["red", "circle", "yes"]


def test_questions_from_a_column(typed: Run) -> None:
    cells = ["what shape is it?", None, 5, "  "]
    lines = [{"image": str(CIRCLE), "question": cell, "ask": "is there a circle?"} for cell in cells]
    Path("m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    ran = typed("vqa", "m.jsonl")
    assert ran.code == 3
    assert list(ran.rows[0]) == ["image", "ask", "question", "answer", "error"]
    assert ran.rows[0]["answer"] == "circle"
    assert [row["error"] for row in ran.rows] == [
        None,
        "missing: no text in column question",
        None,
        "missing: column question is empty",
    ]
    assert [row["answer"] for row in typed("vqa", "m.jsonl", "--question-column", "ask").rows] == ["yes"] * 4


def test_prompts_given_leave_the_question_column_alone(typed: Run) -> None:
    Path("m.jsonl").write_text(json.dumps({"image": str(CIRCLE), "question": "mine"}))
    (row,) = typed("vqa", "m.jsonl", "-p", "what shape is it?").rows
    assert (row["input_question"], row["question"], row["answer"]) == ("mine", "what shape is it?", "circle")


def test_a_template_replaces_that_of_the_language_model(typed: Run) -> None:
    asked = ("vqa", CIRCLE, "-p", "is there a circle?")
    assert typed(*asked, "--template", "Question: {} Answer:").rows == typed(*asked).rows
    assert typed(*asked, "--template", "{} {}: what shape is it?").code == 0
    ran = typed(*asked, "--template", "no place")
    assert ran.code == 2 and ran.err.startswith("blip2: --template does not contain {}\n")


@pytest.mark.parametrize("kind", ["opt_checkpoint", "t5_checkpoint"])
def test_prompts_are_never_echoed(typed: Run, kind: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(kind)
    question = "what colour is the triangle ?"
    for words in (("vqa", CIRCLE, "-p", question), ("caption", CIRCLE, "--prompt", question)):
        (row,) = typed(*words, "--model", model, "--max-new-tokens", 20, "--min-new-tokens", 5).rows
        text = row.get("answer") or row.get("caption")
        assert text and question not in text and "Question" not in text and "<" not in text


def test_several_captions_by_beams_are_different_and_best_first(typed: Run) -> None:
    (row,) = typed("caption", CIRCLE, "--num-captions", 3, "--num-beams", 3).rows
    assert list(row) == ["image", "captions", "error"]
    assert row["captions"][0] == "a red circle" and len(set(row["captions"])) == 3


def test_several_captions_by_sampling_depend_on_the_seed_only(typed: Run) -> None:
    words = ("caption", CIRCLE, TRIANGLE, "--num-captions", 4, "--temperature", 3)
    first = [row["captions"] for row in typed(*words, "--seed", 1).rows]
    assert all(len(captions) == 4 for captions in first) and len(set(first[0])) > 1
    assert [row["captions"] for row in typed(*words, "--seed", 1, "--batch-size", 1).rows] == first
    assert [row["captions"] for row in typed(*words, "--seed", 2).rows] != first


def test_lengths_and_penalties_are_obeyed(typed: Run) -> None:
    def words(*options: object) -> list[str]:
        return typed("caption", CIRCLE, *options).rows[0]["caption"].split()

    assert words("--max-new-tokens", 2) == ["a", "red"]
    assert len(words("--min-new-tokens", 12)) > 3
    assert len(set(words("--min-new-tokens", 8, "--repetition-penalty", 50))) > 3
    assert words("--num-beams", 3, "--length-penalty", -1) == ["a", "red", "circle"]
    assert words("--top-p", 0.01) == ["a", "red", "circle"]
    ran = typed("caption", CIRCLE, "--max-new-tokens", 5000)
    assert ran.code == 2 and ran.err.startswith("blip2: --max-new-tokens 5000 is more than the model has room for\n")


def test_texts_are_embedded_from_a_column_or_the_command_line(typed: Run) -> None:
    Path("m.jsonl").write_text('{"id": 1, "text": "a red circle"}\n{"id": 2, "text": null}\n{"id": 3, "text": "a"}\n')
    ran = typed("embed", "m.jsonl", "--features", "text", "--text", "a red circle")
    assert ran.code == 3
    assert [row["image"] for row in ran.rows] == ["m.jsonl#0", "m.jsonl#1", "m.jsonl#2", "text#0"]
    assert [row["error"] is None for row in ran.rows] == [True, False, True, True]
    assert np.allclose(ran.rows[0]["features"], ran.rows[3]["features"], atol=1e-2)
    (alone,) = typed("embed", "--features", "text", "--text", "a red circle").rows
    assert len(alone["features"]) == 128
    Path("n.csv").write_text("words\nhello\n")
    assert typed("embed", "n.csv", "--features", "text", "--text-column", "words").rows[0]["text"] == "hello"


def test_bad_images_are_rows_in_their_places(typed: Run, tmp_path: Path) -> None:
    whole = CIRCLE.read_bytes()
    (tmp_path / "a.png").write_bytes(whole)
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.jpg").write_text("text")
    (tmp_path / "d.jpg").touch()
    (tmp_path / "e.png").write_bytes(whole)
    for words in (("caption",), ("vqa", "-p", "what shape is it?"), ("embed",)):
        ran = typed(*words, ".", "--summary", "s.json")
        assert ran.code == 3
        assert [row["image"] for row in ran.rows] == ["./a.png", "./b.png", "./c.jpg", "./d.jpg", "./e.png"]
        kinds = [row["error"] and row["error"].partition(":")[0] for row in ran.rows]
        assert kinds == [None, "truncated", "unsupported", "empty", None]
        own = [list(row.values())[-2] for row in ran.rows]
        assert [value is None for value in own] == [False, True, True, True, False]
        assert own[0] == own[4]
        assert json.loads(Path("s.json").read_text())["errors_by_kind"] == dict.fromkeys(
            ("truncated", "unsupported", "empty"), 1
        )


@pytest.mark.parametrize("words", [("caption",), ("vqa", "-p", "what shape is it?"), ("embed",)])
def test_nothing_but_bad_images_are_rows_too(typed: Run, words: tuple[str, ...]) -> None:
    Path("m.csv").write_text("image\n" + "".join(f"gone{number}.jpg\n" for number in range(700)) + f"{CIRCLE}\n")
    ran = typed(*words, "m.csv", "--batch-size", 8, "--workers", 0)
    assert ran.code == 3 and len(ran.rows) == 701
    assert [row["image"] for row in ran.rows[:700]] == [f"gone{number}.jpg" for number in range(700)]
    assert ran.rows[-1]["error"] is None and "701 rows, 700 with errors" in ran.err


@pytest.mark.parametrize(
    "words", [("--out", "\x1b[31m.txt"), ("no\x1b]0;such\x07.png",), ("--model", "\x1b[2J"), ("--\x1b[2J",)]
)
def test_what_is_quoted_in_a_message_does_not_steer_the_terminal(typed: Run, words: tuple[str, ...]) -> None:
    ran = typed("caption", EXAMPLES / "red-circle.png", *words)
    assert ran.code in (1, 2) and ran.err.startswith("blip2: ")
    assert ran.err.replace("\n", "").isprintable()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_device_or_a_pipe_is_not_replaced_by_an_output(typed: Run) -> None:
    os.mkfifo("pipe")
    os.mkfifo("pipe.jsonl")
    for option in ("--out", "--summary"):
        for name in ("pipe", "pipe.jsonl"):
            ran = typed("caption", EXAMPLES / "red-circle.png", option, name, "--overwrite")
            assert ran.code == 2 and f"blip2: {name} is a device or a pipe\n" in ran.err
    results = Path("results.jsonl")
    results.write_text('{"image": "a.jpg", "question": "what?", "answer": "yes"}\n')
    for words in (("report", results), ("score", results, "-r", results)):
        assert "blip2: pipe is a device or a pipe\n" in typed(*words, "--out", "pipe", "--overwrite").err
    assert Path("pipe").is_fifo() and Path("pipe.jsonl").is_fifo()
    assert sorted(path.name for path in Path().iterdir()) == ["pipe", "pipe.jsonl", "results.jsonl"]


@pytest.mark.parametrize("option", ["--out", "--summary"])
def test_an_input_is_not_replaced_by_an_output(typed: Run, option: str) -> None:
    manifest = Path("m.jsonl")
    manifest.write_text(line := json.dumps({"image": str(CIRCLE)}) + "\n")
    ran = typed("caption", TRIANGLE, "m.jsonl", option, "./m.jsonl", "--overwrite")
    assert ran.code == 2 and ran.err.startswith("blip2: m.jsonl is an input, and cannot be the output too\n")
    Path("t.txt").write_text("a red circle\n")
    ran = typed("match", CIRCLE, "--texts", "t.txt", "--summary", "t.txt")
    assert ran.code == 2 and ran.err.startswith("blip2: t.txt is an input, and cannot be the output too\n")
    assert "m.jsonl is an input" in typed("caption", "*.jsonl", option, "m.jsonl", "--overwrite").err
    assert typed("caption", "m.jsonl", "--out", "shards").code == 0
    assert "shards is an input" in typed("match", "shards", "--out", "shards", "--overwrite").err
    assert "m.jsonl is an input" in typed("report", "m.jsonl", "--out", "m.jsonl", "--overwrite").err
    assert manifest.read_text() == line


def test_texts_without_words_are_counted_and_warned_of(typed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Blip2Model, "text", lambda model, ids: " ")
    ran = typed("caption", CIRCLE, CIRCLE, "--prefix", "ohwx, ", "--summary", "s.json")
    assert ran.err.endswith(
        "\n  warning: 2 rows have an empty text: the model wrote no words; --min-new-tokens 3 makes it write some\n"
    )
    assert json.loads(Path("s.json").read_text())["empty"] == 2
