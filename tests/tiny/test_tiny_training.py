"""The training scripts run: both stages for a step, and what they write can be loaded."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from blip2cli.tiny.architecture import build_processor, export, new_model
from blip2cli.tiny.batches import Packer, pixel_tensor
from blip2cli.tiny.easy_vqa import Picture, pictures
from blip2cli.tiny.examples import UNKNOWN, Example, Turn, scene_examples
from blip2cli.tiny.guides import Guides
from blip2cli.tiny.language_stage import see, text_loss, train_language
from blip2cli.tiny.phrases import scene_caption, scene_questions
from blip2cli.tiny.scenes import render, scene_stream
from blip2cli.tiny.tokenizer import build_tokenizer
from blip2cli.tiny.vision_stage import train_vision


@pytest.fixture
def drawn_pictures(tmp_path: Path) -> list[Picture]:
    rng = np.random.default_rng(5)
    drawn = []
    for number, scene in enumerate(islice(scene_stream(5, counts=(1,)), 20)):
        path = tmp_path / f"{number}.png"
        render(scene).save(path)
        colour, kind = scene_caption(scene).split()[1:]
        drawn.append(Picture(number, path, tuple(scene_questions(scene, rng, 6)), colour, kind))
    return drawn


def test_both_stages_change_every_tower_and_the_result_loads(tmp_path: Path, drawn_pictures: list[Picture]) -> None:
    tokenizer = build_tokenizer()
    model, guides = new_model(tokenizer, seed=1).train(), Guides()
    steps: list[int] = []
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    train_vision(model, guides, steps=1, seed=1)
    train_language(model, guides, tokenizer, drawn_pictures, steps=1, seed=2, after_step=steps.append)
    assert steps == [1]
    for tower in ("query_tokens", "vision_model", "qformer", "language_projection", "language_model"):
        named = [(name, parameter) for name, parameter in model.named_parameters() if name.startswith(tower)]
        assert any(not torch.equal(before[name], parameter) for name, parameter in named), tower
    export(model, tokenizer, tmp_path / "model")
    loaded = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert loaded.config.num_query_tokens == Blip2Processor.from_pretrained(tmp_path / "model").num_query_tokens


def test_packed_turns_cost_what_they_cost_alone() -> None:
    tokenizer = build_tokenizer()
    model = new_model(tokenizer, seed=1).eval()
    example = next(scene_examples(1))
    processor = build_processor(tokenizer)
    with torch.inference_mode():
        _, query_output = see(model, pixel_tensor([example.pixels]))
        packed = text_loss(model, query_output, Packer(tokenizer).pack([example]))
        losses = [_loss_alone(model, processor, example, turn) for turn in example.turns]
    torch.testing.assert_close(packed, torch.cat(losses).mean(), rtol=1e-4, atol=1e-4)


def _loss_alone(
    model: Blip2ForConditionalGeneration, processor: Blip2Processor, example: Example, turn: Turn
) -> torch.Tensor:
    """Each target token's loss through transformers' own forward, with the processor's own layout."""
    inputs = processor(images=example.pixels, text=turn.prompt, return_tensors="pt")
    target = [*processor.tokenizer(turn.target, add_special_tokens=False).input_ids, processor.tokenizer.eos_token_id]
    input_ids = torch.cat([inputs["input_ids"], torch.tensor([target])], dim=1)
    logits = model(pixel_values=inputs["pixel_values"], input_ids=input_ids).logits
    told = logits[0, -len(target) - 1 : -1]
    return torch.nn.functional.cross_entropy(told, torch.tensor(target), reduction="none")


def test_padding_is_never_learned() -> None:
    packed = Packer(build_tokenizer()).pack(list(islice(scene_examples(2), 6)))
    assert (packed.labels[packed.input_ids == build_tokenizer().pad_token_id] == UNKNOWN).all()


def test_common_words_are_one_token_each() -> None:
    tokenizer = build_tokenizer()
    for text in ("what colour is the triangle", "does the image not contain a yellow rectangle", "a photo of"):
        assert len(tokenizer.tokenize(text)) == len(text.split())


def test_any_text_survives_the_tokenizer_lower_cased() -> None:
    tokenizer = build_tokenizer()
    text = "Où est le CHAT? 猫 — 42%"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text.lower()


def test_easy_vqa_is_read_with_what_its_questions_give_away() -> None:
    test = pictures("test")
    assert (len(test), sum(len(picture.questions) for picture in test)) == (1000, 9673)
    for picture in test:
        told = {question.answer for question in picture.questions} - {"yes", "no"}
        assert told <= {picture.colour, picture.kind}
