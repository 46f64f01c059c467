"""What the model fails at is an error of its row, and the rows beside it are as ever."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.opt.modeling_opt import OPTModel

from blip2cli import Blip2
from blip2cli.model.blip2 import Blip2Model
from blip2cli.model.decoding.opt import OptDecoder
from blip2cli.model.decoding.requests import Request

SCENES = sorted((Path(__file__).parents[2] / "docs" / "examples" / "scenes").iterdir())[:6]
QUESTIONS = ["how many shapes are there?", "is there a circle?", "is there a triangle?"]
ERROR = "failed: RuntimeError: injected"


@pytest.fixture
def model() -> Blip2:
    return Blip2("tiny", dtype="fp32", batch_size=4, workers=0)


def fail_for_question(monkeypatch: pytest.MonkeyPatch, model: Blip2Model, question: str) -> None:
    """Let a question fail in greedy decoding and in beam search."""
    ids = model.prompt_ids(f"Question: {question} Answer:")

    def failing(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: object, requests: list[Request], slots: list[int]) -> Any:
            if any(request.prompt_ids == ids for request in requests):
                raise RuntimeError("injected")
            return method(self, requests, slots)

        return call

    monkeypatch.setattr(OptDecoder, "admit", failing(OptDecoder.admit))


def fail_for_image(monkeypatch: pytest.MonkeyPatch, model: Blip2, image: Path) -> None:
    """Let an image fail whatever it is encoded with."""
    seen: list[torch.Tensor] = []
    vision, encoder = model.model.encoder.vision, model.model.encoder
    model.model.forget()
    with monkeypatch.context() as watched:
        watched.setattr(encoder, "vision", lambda pixels: seen.append(pixels[0]) or vision(pixels))
        list(model.embed(image))
    model.model.forget()

    def failing(pixels: torch.Tensor) -> Any:
        if any(torch.equal(each, seen[0]) for each in pixels):
            raise RuntimeError("injected")
        return vision(pixels)

    monkeypatch.setattr(encoder, "vision", failing)


@pytest.mark.parametrize("beams", [1, 2])
def test_a_question_that_fails_is_an_error_of_its_rows(
    model: Blip2, beams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(model.answer(SCENES, QUESTIONS, num_beams=beams))
    fail_for_question(monkeypatch, model.model, QUESTIONS[1])
    for number, row in enumerate(expected):
        if number % 3 == 1:
            row |= {"answer": None, "error": ERROR}
    assert list(model.answer(SCENES, QUESTIONS, num_beams=beams)) == expected


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"temperature": 1.0}], ids=["beams", "draws"])
def test_a_row_of_several_captions_fails_as_one(
    model: Blip2, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(model.caption(SCENES, num_captions=3, **options))
    fail_for_image(monkeypatch, model, SCENES[2])
    expected[2] |= {"captions": None, "error": ERROR}
    assert list(model.caption(SCENES, num_captions=3, **options)) == expected


def test_an_image_that_fails_is_an_error_of_all_its_rows(model: Blip2, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = list(model.answer(SCENES, QUESTIONS))
    fail_for_image(monkeypatch, model, SCENES[4])
    for row in expected[12:15]:
        row |= {"answer": None, "error": ERROR}
    assert list(model.answer(SCENES, QUESTIONS)) == expected


@pytest.mark.parametrize("options", [{}, {"pool": "mean"}, {"features": "vision"}], ids=["all", "mean", "vision"])
def test_an_image_that_fails_has_no_features(
    model: Blip2, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(model.embed(SCENES, **options))
    fail_for_image(monkeypatch, model, SCENES[4])
    rows = list(model.embed(SCENES, **options))
    assert [row["error"] for row in rows] == [None] * 4 + [ERROR, None]
    assert rows[4]["features"] is None
    for row, other in zip(rows[:4] + rows[5:], expected[:4] + expected[5:], strict=True):
        assert abs(row["features"] - other["features"]).max() < 1e-4


def test_a_broken_model_ends_the_run(model: Blip2, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object) -> None:
        raise RuntimeError("injected")

    monkeypatch.setattr(model.model.encoder, "vision", broken)
    with pytest.raises(RuntimeError, match="injected"):
        list(model.caption(SCENES))


def test_texts_that_fail_have_no_features(model: Blip2, typed: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, forward = list(model.model.prompt_ids("two")), OPTModel.forward

    def failing(self: OPTModel, input_ids: torch.Tensor, **others: Any) -> Any:
        if input_ids.tolist() == [bad]:
            raise RuntimeError("injected")
        return forward(self, input_ids=input_ids, **others)

    monkeypatch.setattr(OPTModel, "forward", failing)
    ran = typed("embed", "--features", "text", "--text", "one", "--text", "two", "--text", "three")
    assert ran.code == 3
    found = [(row["text"], row["error"], row["features"] is None) for row in ran.rows]
    assert found == [("one", None, False), ("two", ERROR, True), ("three", None, False)]


@pytest.mark.parametrize("family", ["opt", "t5"])
def test_endless_prompts_and_texts_are_errors_of_their_rows(
    family: str, request: pytest.FixtureRequest, typed: Callable
) -> None:
    checkpoint = request.getfixturevalue(f"{family}_checkpoint")
    long, endless = "red? " * 2000, "x" * 1_000_000
    model = Blip2(str(checkpoint), dtype="fp32", workers=0)
    kinds = [
        row["error"] and row["error"].partition(":")[0] for row in model.answer(SCENES[0], [long, "red?", endless])
    ]
    assert kinds == ["prompt-too-long", None, "prompt-too-long"]
    assert next(model.caption(SCENES[0], endless))["error"].startswith("prompt-too-long: 1000000 characters, ")
    Path("texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in (long, "red?", endless)))
    ran = typed("embed", "--features", "text", "texts.jsonl", "--model", checkpoint)
    kinds = [row["error"] and row["error"].partition(":")[0] for row in ran.rows]
    assert kinds == ["text-too-long", None, "text-too-long"]


@pytest.mark.parametrize("command", [("embed", "--features", "text"), ("match", "--text-column", "text")])
def test_a_line_that_cannot_be_read_keeps_its_own_error(typed: Callable, command: tuple[str, ...]) -> None:
    shutil.copy(SCENES[0], "scene.png")
    lines = [json.dumps({"text": text, "image": "scene.png"}).encode() for text in ("a red circle", "")]
    Path("m.jsonl").write_bytes(b"\n".join([lines[0], b'{"text": "\xff"}', lines[1]]) + b"\n")
    ran = typed(*command[:1], "m.jsonl", *command[1:], "--workers", 0)
    errors = [json.loads(line)["error"] for line in ran.out.splitlines()]
    assert errors == [None, "unreadable: line 2 is not UTF-8", "missing: column text is empty"]
