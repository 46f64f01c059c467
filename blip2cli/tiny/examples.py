"""Training examples: an image, what is known of its objects, and what is to be said about it. No batching here."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from .easy_vqa import Picture
from .phrases import CAPTION_PROMPTS, QUESTION_TEMPLATES, Question, caption, scene_caption, scene_questions
from .scenes import CANVAS, LABELS, Scene, render, scene_stream, shape_masks

BACKGROUND = len(LABELS)
"""Label of a patch without a shape, and of an object that is not there."""
UNKNOWN = -100
"""Label that no loss counts."""
MAX_OBJECTS = 3
PATCH = 8

_QUESTIONS_PER_IMAGE = 6
_COVERED, _BARE = 0.15, 0.02  # share of a patch from which a shape labels it, and under which it counts as bare
_SCENE_COUNTS = (1, 2, 3, 3, 2, 3)  # more weight on scenes of several shapes


@dataclass(frozen=True)
class Turn:
    """One prompt and the text that is to follow it."""

    prompt: str
    target: str


@dataclass(frozen=True)
class Example:
    """One image of uint8 [64, 64, 3], patch labels and ranks [64], object labels [3], and the turns about it."""

    pixels: np.ndarray
    patch_labels: np.ndarray
    patch_ranks: np.ndarray
    objects: np.ndarray
    turns: tuple[Turn, ...]


def scene_examples(seed: int) -> Iterator[Example]:
    """Rendered scenes for ever, never the same one twice."""
    rng = np.random.default_rng(seed)
    for scene in scene_stream(seed, _SCENE_COUNTS):
        labels, ranks = patch_targets(scene)
        objects = np.full(MAX_OBJECTS, BACKGROUND)
        objects[: len(scene.shapes)] = [shape.label for shape in scene.shapes]
        questions = scene_questions(scene, rng, _QUESTIONS_PER_IMAGE)
        turns = (*_question_turns(questions, rng), *_caption_turns(scene_caption(scene), rng))
        yield Example(np.asarray(render(scene)), labels, ranks, objects, turns)


def easy_vqa_examples(pictures: list[Picture], seed: int) -> Iterator[Example]:
    """The pictures for ever, in a new order each round, half of them mirrored, with some of their own questions."""
    rng = np.random.default_rng(seed)
    unknown = np.full((CANVAS // PATCH) ** 2, UNKNOWN)
    while True:
        for index in rng.permutation(len(pictures)):
            picture = pictures[int(index)]
            chosen = rng.permutation(len(picture.questions))[:_QUESTIONS_PER_IMAGE]
            turns = _question_turns([picture.questions[int(number)] for number in chosen], rng)
            objects = np.full(MAX_OBJECTS, UNKNOWN)
            if picture.colour and picture.kind:
                objects[:] = BACKGROUND
                objects[0] = LABELS.index((picture.colour, picture.kind))
                turns += _caption_turns(caption([(picture.colour, picture.kind)]), rng)
            yield Example(_picture_pixels(picture, bool(rng.random() < 0.5)), unknown, unknown, objects, turns)


def patch_targets(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """For each 8 x 8 patch: what covers it, and that shape's place from the left (from 1; 0 where there is none)."""
    grid = CANVAS // PATCH
    masks = np.stack([np.asarray(mask) for mask in shape_masks(scene)]) / 255
    cover = masks.reshape(-1, grid, PATCH, grid, PATCH).mean(axis=(2, 4)).reshape(-1, grid * grid)
    largest, owner = cover.max(axis=0), cover.argmax(axis=0)
    shape_labels = np.array([shape.label for shape in scene.shapes])
    bare, covered = largest < _BARE, largest >= _COVERED
    labels = np.where(covered, shape_labels[owner], np.where(bare, BACKGROUND, UNKNOWN))
    ranks = np.where(covered, owner + 1, np.where(bare, 0, UNKNOWN))
    return labels, ranks


def _question_turns(questions: list[Question], rng: np.random.Generator) -> tuple[Turn, ...]:
    templates = rng.choice(len(QUESTION_TEMPLATES), size=len(questions), p=(0.85, 0.1, 0.05))
    return tuple(
        Turn(QUESTION_TEMPLATES[int(template)].format(question.text), f" {question.answer}")
        for template, question in zip(templates, questions, strict=True)
    )


def _caption_turns(text: str, rng: np.random.Generator) -> tuple[Turn, ...]:
    prompt = CAPTION_PROMPTS[0] if rng.random() < 0.6 else CAPTION_PROMPTS[int(rng.integers(len(CAPTION_PROMPTS)))]
    return Turn("", text), Turn(prompt, f" {text}")


def _picture_pixels(picture: Picture, mirrored: bool) -> np.ndarray:
    with Image.open(picture.path) as opened:
        image = opened.convert("RGB")
    return np.asarray(ImageOps.mirror(image) if mirrored else image)
