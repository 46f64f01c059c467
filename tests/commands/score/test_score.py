"""`blip2 score`: what it reads, how results find their references, and what it refuses or tells."""

import csv
import json
import math
import os
import pty
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import Typed

ANSWERS = {9000: "no", 9001: "a circle", 9002: "red"}
PEOPLE = {9000: ["no"] * 10, 9001: ["circle"] * 7 + ["disc"] * 3, 9002: ["blue"] * 9 + ["red"]}
TYPES = {9000: "yes/no", 9001: "other", 9002: "other"}
ACCURACY = {"vqa_accuracy": 76.67, "vqa_accuracy_lavis": 76.67, "exact_match": 66.67, "normalised_match": 100.0}


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """Three questions as VQAv2 has them, in two files."""
    entries = [
        {
            "question_id": key,
            "image_id": key // 1000,
            "question_type": "is there a" if key == 9000 else "what",
            "answer_type": TYPES[key],
            "answers": [{"answer": text, "answer_id": at} for at, text in enumerate(people, 1)],
        }
        for key, people in PEOPLE.items()
    ]
    questions = [{"question_id": key, "image_id": 9, "question": f"Question {key}?"} for key in PEOPLE]
    write_json(tmp_path / "questions.json", {"data_subtype": "val2014", "questions": questions})
    return write_json(tmp_path / "annotations.json", {"data_subtype": "val2014", "annotations": entries})


def rows(**changed: Any) -> list[dict[str, Any]]:
    """Results as `blip2 vqa` writes them."""
    return [
        {"image": f"COCO_val2014_{key // 1000:012}.jpg", "question_id": key, "question": "?", "answer": text}
        | {"error": None, **changed}
        for key, text in ANSWERS.items()
    ]


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_lines(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def write_csv(path: Path, records: list[dict[str, Any]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    return path


def write_shards(path: Path, records: list[dict[str, Any]]) -> Path:
    path.mkdir()
    for at, part in enumerate((records[:2], records[2:])):
        pq.write_table(pa.Table.from_pylist(part), path / f"part-{at:05}.parquet")
    return path


def write_results(path: Path, records: list[dict[str, Any]]) -> Path:
    return write_json(path, [{name: record[name] for name in ("question_id", "answer")} for record in records])


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("answers.jsonl", write_lines),
        ("answers.csv", write_csv),
        ("shards", write_shards),
        ("answers.json", write_results),
    ],
)
def test_results_of_every_layout_give_the_same_figures(
    typed: Callable[..., Typed], annotations: Path, name: str, write: Callable[[Path, list], Path]
) -> None:
    write(annotations.parent / name, rows())
    run = typed("score", name, "--references", "annotations.json")
    assert run.code == 0 and run.err == ""
    told = json.loads(run.out)
    assert told["metrics"] == ACCURACY
    assert told["matched_by"] == "question_id"
    assert told["by"]["answer_type"]["yes/no"] == {"scored": 1, **dict.fromkeys(ACCURACY, 100.0)}


def test_results_may_carry_their_references(typed: Callable[..., Typed], tmp_path: Path) -> None:
    asked = [("what shape is it?", "circle", "circle"), ("what colour is it?", "mauve", "red")]
    written = [
        {"image": "a.png", "input_answer": gold, "question": question, "answer": answer, "error": None}
        for question, gold, answer in asked
    ]
    pq.write_table(pa.Table.from_pylist(written), tmp_path / "r.parquet")
    told = json.loads(typed("score", "r.parquet", "-r", "r.parquet", "--reference-column", "input_answer").out)
    assert told["metrics"] == {"exact_match": 50.0, "normalised_match": 50.0}
    assert told["matched_by"] == "image and question"


def test_what_is_scored_is_the_last_text_not_one_that_was_carried(typed: Callable[..., Typed], tmp_path: Path) -> None:
    written = {"image": "a.png", "answer": "carried", "captions": ["carried"], "caption": "written", "error": None}
    write_lines(tmp_path / "r.jsonl", [written])
    write_lines(tmp_path / "truth.jsonl", [{"image": "a.png", "caption": "written"}])
    told = json.loads(typed("score", "r.jsonl", "-r", "truth.jsonl", "--metrics", "exact_match").out)
    assert (told["column"], told["metrics"]) == ("caption", {"exact_match": 100.0})


def test_gqa_is_scored_by_equality(typed: Callable[..., Typed], tmp_path: Path) -> None:
    questions = {
        "05": {"imageId": "n1", "question": "what is it?", "answer": "t-shirt", "types": {"structural": "query"}},
        "06": {"imageId": "n1", "question": "is it?", "answer": "yes", "types": {"structural": "verify"}},
    }
    write_json(tmp_path / "gqa.json", questions)
    answers = [{"question_id": "05", "answer": "a T-shirt"}, {"question_id": "06", "answer": "yes"}]
    write_json(tmp_path / "results.json", answers)
    told = json.loads(typed("score", "results.json", "-r", "gqa.json", "--by", "types.structural").out)
    assert told["metrics"] == {"exact_match": 50.0, "normalised_match": 100.0}
    assert told["by"]["types.structural"]["query"]["exact_match"] == 0.0
    refused = typed("score", "results.json", "-r", "gqa.json", "--metrics", "vqa_accuracy")
    assert refused.code == 2
    assert refused.err.startswith("blip2: the references have one answer for each question")


@pytest.mark.parametrize(
    "answers",
    [["cone", "cone", "ball"], '["cone", "cone", "ball"]', ["cone", "cone", math.nan, "ball"]],
    ids=["a list", "a list in a cell", "with NaN, as pandas writes what is missing"],
)
def test_a_table_with_a_column_of_answers_is_a_reference(
    typed: Callable[..., Typed], tmp_path: Path, answers: Any
) -> None:
    write_lines(tmp_path / "truth.jsonl", [{"image": "shots/a.png", "question": "what?", "gold": answers}])
    write_lines(tmp_path / "results.jsonl", [{"image": "/data/a.png", "question": "what?", "answer": "cone"}])
    told = json.loads(typed("score", "results.jsonl", "-r", "truth.jsonl", "--reference-column", "gold").out)
    assert told["metrics"]["vqa_accuracy"] == 44.44  # (1/3 + 1/3 + 2/3) / 3
    assert told["matched_by"] == "file name and question"


def test_captions_find_their_image_by_the_number_in_its_name(typed: Callable[..., Typed], tmp_path: Path) -> None:
    annotations = [{"image_id": 9, "caption": "a red circle"}, {"image_id": 9, "caption": "a disc"}]
    write_json(tmp_path / "coco.json", {"images": [{"id": 9}, {"id": 10}], "annotations": annotations})
    write_lines(tmp_path / "r.jsonl", [{"image": "val/COCO_val2014_000000000009.jpg", "captions": ["a disc", "no"]}])
    run = typed("score", "r.jsonl", "-r", "coco.json", "--metrics", "exact_match")
    told = json.loads(run.out)
    assert told["metrics"] == {"exact_match": 100.0}
    assert told["matched_by"] == "the number that ends the file name"
    assert run.err.splitlines() == [
        "blip2: warning: results that are lists of texts, the first of which is scored: 1",
        "blip2: warning: references without a text, left out: 1",
    ]


def test_captions_of_one_image_may_stand_in_several_rows(typed: Callable[..., Typed], tmp_path: Path) -> None:
    captions = [{"image": "a.png", "caption": text} for text in ("one", "two")]
    write_csv(tmp_path / "truth.csv", captions)
    write_lines(tmp_path / "r.jsonl", [{"image": "a.png", "caption": "two", "error": None}])
    run = typed("score", "r.jsonl", "-r", "truth.csv", "--metrics", "exact_match", "--per-row", "rows.jsonl")
    assert json.loads(run.out)["metrics"] == {"exact_match": 100.0}
    assert json.loads((tmp_path / "rows.jsonl").read_text()) == {
        "key": "a.png", "image": "a.png", "text": "two", "references": ["one", "two"], "exact_match": 100.0,
        "error": None,
    }  # fmt: skip


def test_an_error_is_wrong_and_told_even_where_people_said_nothing(
    typed: Callable[..., Typed], annotations: Path
) -> None:
    given = json.loads(annotations.read_text())
    for answer in given["annotations"][0]["answers"]:
        answer["answer"] = ""
    write_json(annotations, given)
    results = rows()
    results[0] |= {"answer": "", "error": "truncated: image file is truncated"}
    write_lines(annotations.parent / "answers.jsonl", results)
    run = typed("score", "answers.jsonl", "-r", "annotations.json")
    assert json.loads(run.out)["by"]["answer_type"]["yes/no"]["vqa_accuracy"] == 0.0
    assert run.err == "blip2: warning: results with an error, counted as wrong: 1\n"


def test_references_without_a_result_are_refused_or_with_partial_told(
    typed: Callable[..., Typed], annotations: Path
) -> None:
    write_lines(annotations.parent / "answers.jsonl", rows()[:2])
    refused = typed("score", "answers.jsonl", "-r", "annotations.json")
    assert refused.code == 2 and refused.out == ""
    assert refused.err.splitlines() == [
        "blip2: 1 of 3 references have no result, such as '9002'",
        "       Finish the run, or use --partial to score only the results that exist.",
    ]
    partial = typed("score", "answers.jsonl", "-r", "annotations.json", "--partial")
    assert json.loads(partial.out)["metrics"]["vqa_accuracy"] == 100.0
    assert partial.err == "blip2: warning: references without a result, not scored: 1\n"


def test_results_that_stand_there_twice_are_told_or_refused_where_they_differ(
    typed: Callable[..., Typed], annotations: Path
) -> None:
    again = [*rows(), rows()[0], {**rows()[0], "question_id": 7}]
    write_lines(annotations.parent / "answers.jsonl", again)
    run = typed("score", "answers.jsonl", "-r", "annotations.json")
    assert json.loads(run.out)["metrics"] == ACCURACY
    assert run.err.splitlines() == [
        "blip2: warning: results without a reference, not scored: 1",
        "blip2: warning: duplicate results: 1",
    ]
    write_lines(annotations.parent / "answers.jsonl", [*rows(), *rows(answer="other")])
    refused = typed("score", "answers.jsonl", "-r", "annotations.json")
    assert refused.code == 2
    assert refused.err.startswith("blip2: two results for '9000' differ, matched by question_id")


def test_questions_beside_the_annotations_add_their_text(typed: Callable[..., Typed], annotations: Path) -> None:
    write_results(annotations.parent / "answers.json", rows())
    files = ("-r", "annotations.json", "-r", "questions.json")
    assert typed("score", "answers.json", *files, "--per-row", "rows.jsonl").code == 0
    first = json.loads((annotations.parent / "rows.jsonl").read_text().splitlines()[0])
    assert first["question"] == "Question 9000?"
    assert first["vqa_accuracy"] == 100.0


def test_figures_go_to_a_file_that_is_replaced_only_when_asked(typed: Callable[..., Typed], annotations: Path) -> None:
    write_lines(annotations.parent / "answers.jsonl", rows())
    command = ("score", "answers.jsonl", "-r", "annotations.json", "--by", "question_type", "--out", "figures.json")
    first = typed(*command)
    assert (first.code, first.out) == (0, "")
    figures = json.loads((annotations.parent / "figures.json").read_text())
    assert figures["by"]["question_type"]["what"]["scored"] == 2
    refused = typed(*command)
    assert refused.code == 2
    assert refused.err.splitlines()[0] == "blip2: figures.json exists"
    assert typed(*command, "--overwrite").code == 0


def test_a_terminal_gets_a_table_without_control_characters(annotations: Path) -> None:
    given = json.loads(annotations.read_text())
    given["annotations"][0]["answer_type"] = "yes\x1b]0;owned\x07"
    write_json(annotations, given)
    write_lines(annotations.parent / "answers.jsonl", rows())
    shown = on_terminal(annotations.parent, "score", "answers.jsonl", "-r", "annotations.json")
    assert "all" in shown and "76.67" in shown
    assert "owned" in shown and "\x1b]0" not in shown and "\x07" not in shown


def on_terminal(folder: Path, *arguments: str) -> str:
    """What `blip2` shows on a terminal."""
    import subprocess
    import sys

    master, slave = pty.openpty()
    subprocess.run([sys.executable, "-m", "blip2cli", *arguments], stdout=slave, cwd=folder, check=True, timeout=60)
    os.close(slave)
    shown = os.read(master, 65536).decode()
    os.close(master)
    return shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--metrics", "rogue"), "unknown metric rogue"),
        (("--by", "colour"), "neither the references nor the results have a column colour"),
        (("--column", "prose"), "answers.jsonl: no column prose"),
        (("--reference-column", "prose"), "annotations.json: no column prose"),
        (("-r", "gone.json"), "no such input: gone.json"),
        (("--out", "gone/figures.json"), "cannot write gone/figures.json: there is no folder gone"),
        (("--out", "f.json", "--per-row", "f.json"), "--out and --per-row are both f.json"),
        (("--out", "answers.jsonl", "--overwrite"), "answers.jsonl is an input, and cannot be the output too"),
    ],
)
def test_what_cannot_be_scored_is_an_error_of_usage(
    typed: Callable[..., Typed], annotations: Path, arguments: tuple[str, ...], message: str
) -> None:
    write_lines(annotations.parent / "answers.jsonl", rows())
    run = typed("score", "answers.jsonl", "-r", "annotations.json", *arguments)
    assert (run.code, run.out) == (2, "")
    assert run.err.splitlines()[0] == f"blip2: {message}"
    assert len(run.err.splitlines()) == 2


def test_files_that_share_no_question_are_refused(typed: Callable[..., Typed], annotations: Path) -> None:
    write_lines(annotations.parent / "answers.jsonl", [{"question_id": 1, "answer": "no"}])
    run = typed("score", "answers.jsonl", "-r", "annotations.json")
    assert run.code == 2
    assert run.err.splitlines()[0] == "blip2: no result has a reference"


def test_broken_rows_are_counted(typed: Callable[..., Typed], annotations: Path) -> None:
    path = write_lines(annotations.parent / "answers.jsonl", rows())
    path.write_text(path.read_text() + "{broken\n[1]\n")
    run = typed("score", "answers.jsonl", "-r", "annotations.json")
    assert run.code == 0
    assert run.err == "blip2: warning: rows of the results that cannot be read: 2\n"


def test_the_table_of_metrics_is_what_each_of_their_classes_measures() -> None:
    from blip2cli.commands.score import answers, captions, labels
    from blip2cli.commands.score.options import METRICS

    assert list(METRICS.values()) == [tuple(answers.METRICS), captions.METRICS, labels.METRICS]


def test_compressed_csv_as_blip2_writes_it_is_read(typed: Callable[..., Typed], annotations: Path) -> None:
    import zstandard

    plain = write_csv(annotations.parent / "answers.csv", rows()).read_bytes()
    (annotations.parent / "answers.csv.zst").write_bytes(zstandard.compress(plain))
    run = typed("score", "answers.csv.zst", "-r", "annotations.json")
    assert json.loads(run.out)["metrics"] == ACCURACY


def test_references_may_be_lists_within_lists(typed: Callable[..., Typed], tmp_path: Path) -> None:
    write_lines(tmp_path / "results.jsonl", [{"image": "a.png", "question": "q", "answer": "x"}])
    deep = "[" * 150 + '"x"' + "]" * 150
    (tmp_path / "references.jsonl").write_text(f'{{"image": "a.png", "question": "q", "answers": [{deep}, ["y"]]}}\n')
    ran = typed("score", "results.jsonl", "-r", "references.jsonl", "--metrics", "exact_match")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["metrics"] == {"exact_match": 100.0}
