"""Validation while training: captions and answers through transformers' own generate, on data held out of training."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from PIL import Image
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from .easy_vqa import Picture
from .phrases import HOW_MANY, QUESTION_TEMPLATES, named_shapes, scene_caption
from .scenes import Scene, render, scene_stream

HELD_OUT_SEED = 1_000_003
"""Seed of the scenes that validation shows; accuracy and tests use others, and training others again."""


@dataclass(frozen=True)
class HeldOut:
    """Images kept out of training: scenes of one to three shapes, and pictures of easy-VQA's train split."""

    scenes: list[Scene]
    pictures: list[Picture]


def held_out(pictures: list[Picture], scenes: int) -> HeldOut:
    """The pictures given, and `scenes` scenes of the held-out seed."""
    return HeldOut(list(islice(scene_stream(HELD_OUT_SEED), scenes)), pictures)


@torch.inference_mode()
def generate_texts(
    model: Blip2ForConditionalGeneration,
    processor: Blip2Processor,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    batch: int = 64,
) -> list[str]:
    """The text that follows each prompt, greedily."""
    texts: list[str] = []
    for start in range(0, len(images), batch):
        part = slice(start, start + batch)
        inputs = processor(images=list(images[part]), text=list(prompts[part]), padding=True, return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=24, do_sample=False)
        new_ids = output[:, inputs["input_ids"].shape[1] :]
        texts += [text.strip() for text in processor.tokenizer.batch_decode(new_ids, skip_special_tokens=True)]
    return texts


def validate(model: Blip2ForConditionalGeneration, processor: Blip2Processor, data: HeldOut) -> str:
    """One line of figures, in per cent."""
    model.eval()
    images = [render(scene) for scene in data.scenes]
    wanted = [scene_caption(scene) for scene in data.scenes]
    captions = generate_texts(model, processor, images, [""] * len(images))
    prompted = generate_texts(model, processor, images, ["a photo of"] * len(images))
    counts = generate_texts(model, processor, images, [QUESTION_TEMPLATES[0].format(HOW_MANY)] * len(images))
    figures = [f"easy-VQA {_picture_accuracy(model, processor, data.pictures):.2f}"]
    for number in (1, 2, 3):
        rows = [row for row, scene in enumerate(data.scenes) if len(scene.shapes) == number]
        named = _per_cent([named_shapes(captions[row]) == named_shapes(wanted[row]) for row in rows])
        ordered = _per_cent([captions[row] == wanted[row] for row in rows])
        figures.append(f"{number} shapes {named:.1f} (in order {ordered:.1f})")
    figures.append(f"prompted {_per_cent([a == b for a, b in zip(prompted, wanted, strict=True)]):.1f}")
    right_counts = [count == str(len(scene.shapes)) for count, scene in zip(counts, data.scenes, strict=True)]
    figures.append(f"counts {_per_cent(right_counts):.1f}")
    model.train()
    return ", ".join(figures)


def _picture_accuracy(
    model: Blip2ForConditionalGeneration, processor: Blip2Processor, pictures: Sequence[Picture]
) -> float:
    asked = [(picture, question) for picture in pictures for question in picture.questions]
    images = [Image.open(picture.path).convert("RGB") for picture, _ in asked]
    prompts = [QUESTION_TEMPLATES[0].format(question.text) for _, question in asked]
    answers = generate_texts(model, processor, images, prompts)
    return _per_cent([answer == question.answer for answer, (_, question) in zip(answers, asked, strict=True)])


def _per_cent(right: Sequence[bool]) -> float:
    return 100 * sum(right) / max(1, len(right))
