"""File names and prompts of any kind."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from blip2cli.tiny import MODEL_DIR
from tests.conftest import Typed, rows_of

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CIRCLE = EXAMPLES / "red-circle.png"
Run = Callable[..., Typed]
NAMES = [
    *(b"new\nline.png", b'"quo\'ted".png', b"\xff\xfe.png", b"x" * 251 + b".png", b"-dash.png", b"tab\t.png"),
    *(b"back\\slash.png", b" space .png", b"<script>.png", b"\x1b[31m.png"),
    *(name.encode() for name in ("\N{PARROT}.png", "\u05e9\u05dc\u05d5\u05dd.png")),
]


def test_file_names_of_any_kind_come_out_as_they_are(typed: Run) -> None:
    folder = Path("photos")
    folder.mkdir()
    for name in NAMES:
        shutil.copy(os.fsencode(CIRCLE), os.path.join(b"photos", name))
    expected = [f"photos/{name.decode('utf-8', 'backslashreplace')}" for name in NAMES]
    for out in ("o.jsonl", "o.parquet"):
        assert typed("caption", "photos", "--out", out).code == 0
    rows = rows_of(Path("o.jsonl").read_text())
    assert sorted(row["image"] for row in rows) == sorted(expected)
    assert {row["caption"] for row in rows} == {"a red circle"}
    assert pq.read_table("o.parquet")["image"].to_pylist() == [row["image"] for row in rows]
    assert typed("caption", "photos", "--out", "o.jsonl", "--resume").err.startswith("0 rows")


PROMPTS = [
    *("\N{PARROT}" * 50, "\u0645\u0627 \u0647\u0630\u0627\u061f", "\u202e", "\ud83d", "\x00\x1b[31m", "a\nb\r\n"),
    *("</s>", "<image>" * 3, "<pad><s></s>", "%s {} {0}"),
]


@pytest.mark.parametrize("prompt", PROMPTS, ids=ascii)
def test_prompts_of_any_kind_are_text(typed: Run, prompt: str) -> None:
    Path("m.jsonl").write_text(json.dumps({"image": str(CIRCLE), "question": prompt}) + "\n")
    ran = typed("vqa", "m.jsonl", "--out", "o.jsonl")
    assert ran.code == 0, ran.err
    row = json.loads(Path("o.jsonl").read_text())
    assert row["question"] == prompt.encode("utf-8", "backslashreplace").decode()
    assert isinstance(row["answer"], str)


@pytest.mark.parametrize("words", [10_000, 500_000])
def test_a_prompt_that_is_too_long_is_an_error_row(typed: Run, words: int) -> None:
    questions = ("what shape is red? " * words, "what shape is red?")
    lines = [{"image": str(CIRCLE), "question": question} for question in questions]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert typed("vqa", "m.jsonl", "--out", "o.jsonl").code == 3
    rows = rows_of(Path("o.jsonl").read_text())
    assert rows[0]["error"].startswith("prompt-too-long: ") and rows[0]["answer"] is None
    assert rows[1]["answer"] == "circle"


def test_an_empty_prompt_is_refused_and_an_empty_question_is_an_error_row(typed: Run) -> None:
    ran = typed("vqa", CIRCLE, "-p", " ")
    assert ran.code == 2 and ran.err.count("\n") == 2
    Path("m.jsonl").write_text(json.dumps({"image": str(CIRCLE), "question": ""}) + "\n")
    assert typed("vqa", "m.jsonl").rows[0]["error"] == "missing: column question is empty"


class Mark:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("unpickled"),))


def test_pickled_weights_are_refused_with_the_reason(typed: Run) -> None:
    shutil.copytree(MODEL_DIR, "model")
    for weights in Path("model").glob("*.safetensors*"):
        weights.unlink()
    Path("model/pytorch_model.bin").write_bytes(pickle.dumps(Mark()))
    ran = typed("caption", CIRCLE, "--model", "model")
    assert ran.code == 1
    assert ran.err == (
        "blip2: model has no weights in model.safetensors\n       Pickled weights are not loaded; convert them first.\n"
    )
    assert not Path("unpickled").exists()


def test_code_in_a_checkpoint_is_never_run(typed: Run) -> None:
    shutil.copytree(MODEL_DIR, "model")
    Path("model/code.py").write_text("open('ran', 'w')\nclass C: pass\n")
    for name in ("config.json", "tokenizer_config.json", "processor_config.json"):
        config = json.loads(Path("model", name).read_text())
        config["auto_map"] = dict.fromkeys(("AutoConfig", "AutoModel", "AutoTokenizer", "AutoProcessor"), "code.C")
        Path("model", name).write_text(json.dumps(config))
    ran = typed("caption", CIRCLE, "--model", "model")
    assert not Path("ran").exists()
    assert ran.code in (0, 1) and "Traceback" not in ran.err
