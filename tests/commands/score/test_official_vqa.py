"""Accuracies equal the official evaluation's, question by question.

vqa_official.json holds 463 made-up questions, and what vqaEvaluation/vqaEval.py of github.com/GT-Vision-Lab/VQA (commit
a013f00, its two print statements put into brackets for Python 3.11) and lavis/common/vqa_tools/vqa_eval.py of
github.com/salesforce/LAVIS (commit 506965b) gave for them, each run once outside this repository. In it are all
contractions, numbers and articles the evaluation knows, punctuation with and without spaces, commas in numbers, more
than 32 periods, other scripts, empty answers, people who all agree, fewer than ten of them, and two answers by one.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Typed

OFFICIAL = json.loads((Path(__file__).parent / "vqa_official.json").read_text(encoding="utf-8"))
QUESTIONS = OFFICIAL["questions"]


@pytest.fixture
def scored(typed: Callable[..., Typed], tmp_path: Path) -> dict:
    """The figures of the fixture, its questions written as VQAv2's annotations and result files are."""
    annotations = [
        {
            "question_id": question["question_id"],
            "image_id": 5,
            "question_type": question["question_type"],
            "answer_type": question["answer_type"],
            "multiple_choice_answer": question["people"][0],
            "answers": [
                {"answer": text, "answer_confidence": "yes", "answer_id": number}
                for number, text in zip(question.get("ids") or range(1, 11), question["people"], strict=False)
            ],
        }
        for question in QUESTIONS
    ]
    results = [{"question_id": question["question_id"], "answer": question["answer"]} for question in QUESTIONS]
    (tmp_path / "annotations.json").write_text(json.dumps({"info": {}, "annotations": annotations}))
    (tmp_path / "results.json").write_text(json.dumps(results))
    run = typed(
        *("score", "results.json", "--references", "annotations.json", "--by", "question_type", "--by", "answer_type"),
        *("--per-row", "rows.jsonl"),
    )
    assert run.code == 0, run.err
    return json.loads(run.out)


@pytest.mark.parametrize(("metric", "evaluation"), [("vqa_accuracy", "official"), ("vqa_accuracy_lavis", "lavis")])
def test_every_question_has_the_accuracy_that_the_evaluation_gives_it(
    scored: dict, tmp_path: Path, metric: str, evaluation: str
) -> None:
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    ours = {row["question_id"]: row[metric] for row in rows}
    theirs = {question["question_id"]: question[evaluation] for question in QUESTIONS}
    assert {key: (ours[key], theirs[key]) for key in theirs if ours[key] != theirs[key]} == {}
    assert len(ours) == len(theirs)


@pytest.mark.parametrize(("metric", "evaluation"), [("vqa_accuracy", "official"), ("vqa_accuracy_lavis", "lavis")])
def test_the_means_are_those_of_the_evaluation(scored: dict, metric: str, evaluation: str) -> None:
    theirs = OFFICIAL[evaluation]
    assert scored["metrics"][metric] == theirs["overall"]
    for column, name in (("question_type", "perQuestionType"), ("answer_type", "perAnswerType")):
        assert {value: group[metric] for value, group in scored["by"][column].items()} == theirs[name]
