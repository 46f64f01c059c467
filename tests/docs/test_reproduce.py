"""Each command of docs/reproduce.md does what it is for, with small files of the same form and the bundled model."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Typed
from tests.docs.pages import REPOSITORY, blocks

PAGE = REPOSITORY / "docs" / "reproduce.md"
COMMANDS = [
    shlex.split(line)[1:] for kind, text in blocks(PAGE) if kind == "sh" for line in text.splitlines() if line.strip()
]
RUNS = [command for command in COMMANDS if command[0] != "score"]
SCORES = [command for command in COMMANDS if command[0] == "score"]

QUESTION = {"question_id": 9000, "image_id": 9, "question": "what is it?"}
COCO_QUESTIONS = {"data_subtype": "val2014", "questions": [QUESTION]}
PEOPLE = [{"answer": "circle", "answer_id": number} for number in range(1, 11)]
ANSWERED = {"question_id": 9000, "image_id": 9, "question_type": "what", "answer_type": "other", "answers": PEOPLE}
COCO_ANSWERS = {"annotations": [ANSWERED]}
GQA = {"9000": {"imageId": "n9", "question": "what is it?", "answer": "circle"}}
CAPTION = {"image_id": 9, "id": 1, "caption": "a circle"}

FILES: dict[str, Any] = {
    "v2_OpenEnded_mscoco_val2014_questions.plain.json": COCO_QUESTIONS,
    "v2_OpenEnded_mscoco_test2015_questions.plain.json": {**COCO_QUESTIONS, "data_subtype": "test2015"},
    "v2_mscoco_val2014_annotations.json": COCO_ANSWERS,
    "OpenEnded_mscoco_val2014_questions.plain.json": COCO_QUESTIONS,
    "mscoco_val2014_annotations.json": COCO_ANSWERS,
    "testdev_balanced_questions.plain.json": GQA,
    "testdev_balanced_questions.json": GQA,
    "coco_karpathy_test.json": [{"image": "val2014/COCO_val2014_000000000009.jpg", "caption": ["a circle"]}],
    "coco_karpathy_test_gt.json": {"images": [{"id": 9}], "annotations": [CAPTION]},
    "nocaps_val_4500_captions.json": {
        "images": [{"id": 9, "file_name": "n9.jpg", "domain": "in-domain"}],
        "annotations": [CAPTION],
    },
}

IMAGES = (
    "val2014/COCO_val2014_000000000009.jpg",
    "test2015/COCO_test2015_000000000009.jpg",
    "images/n9.jpg",
    "coco/val2014/COCO_val2014_000000000009.jpg",
    "val/n9.jpg",
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data sets' files, with one question or image each."""
    for name, content in FILES.items():
        (tmp_path / name).write_text(json.dumps(content))
    picture = (REPOSITORY / "docs" / "examples" / "red-circle.png").read_bytes()
    for name in IMAGES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture)
    return tmp_path


@pytest.mark.parametrize("command", RUNS, ids=lambda command: command[-1])
def test_every_run_would_read_its_data_set_and_ask_its_model(
    typed: Callable[..., Typed], data: Path, command: list[str]
) -> None:
    at = command.index("--model") + 1
    run = typed(*command[:at], "tiny", *command[at + 1 :], "--dry-run")
    assert run.code == 0, run.err
    assert command[1] in run.out and command[-1] in run.out


@pytest.mark.parametrize("command", SCORES, ids=lambda command: command[1])
def test_every_score_finds_the_references_of_what_its_run_writes(
    typed: Callable[..., Typed], data: Path, command: list[str]
) -> None:
    results = command[1]
    assert results in {run[-1] for run in RUNS}
    captions = results.startswith(("coco", "nocaps"))
    answer = {"image_id": 9, "caption": "a circle"} if captions else {"question_id": "9000", "answer": "circle"}
    (data / results).write_text(json.dumps([answer]))
    run = typed(*command, *(["--metrics", "exact_match"] if captions else []))  # the others need Java, and time
    assert run.code == 0, run.err
    told = json.loads(run.out)
    assert (told["scored"], told["metrics"]["exact_match"]) == (1, 100.0)


@pytest.mark.parametrize("name", ["coco_karpathy_test.json", "OpenEnded_mscoco_val2014_questions.plain.json"])
def test_what_a_run_writes_is_what_its_score_reads(typed: Callable[..., Typed], data: Path, name: str) -> None:
    command = next(command for command in RUNS if command[1] == name)
    at = command.index("--model") + 1
    assert typed(*command[:at], "tiny", *command[at + 1 :], "--quiet").code == 0
    score = next(score for score in SCORES if score[1] == command[-1])
    told = json.loads(typed(*score, "--metrics", "exact_match").out)
    assert (told["scored"], told["errors"], told["references_without_result"]) == (1, 0, 0)


def test_every_row_of_the_tables_has_its_run_and_its_score() -> None:
    models = ["opt-2.7b", "opt-6.7b", "flan-t5-xl", "flan-t5-xxl"]
    rows = {f"{name}-{model}.json" for name in ("vqav2", "okvqa", "gqa") for model in models}
    rows |= {f"{name}-{model}.json" for name in ("coco", "nocaps") for model in models[:3]}
    assert {command[1] for command in SCORES} == rows
    assert {command[-1] for command in RUNS} == rows | {"test-opt-2.7b.json"}
    for command in RUNS:
        model = command[command.index("--model") + 1].removeprefix("Salesforce/blip2-").removesuffix("-coco")
        assert command[-1].endswith(f"-{model}.json")
