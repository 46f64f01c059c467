"""What can be said about a scene: its caption, and questions with their answers. No pixels here."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .scenes import COLOURS, KINDS, LABELS, Scene

CAPTION_PROMPTS = ("a photo of", "an image of", "a picture of", "this is")
QUESTION_TEMPLATES = ("Question: {} Answer:", "Question: {} Short answer:", "{}")
HOW_MANY = "how many shapes are there?"
ANSWERS: tuple[str, ...] = (*COLOURS, *KINDS, "yes", "no", "0", "1", "2", "3")

_PRESENCE = (
    "is there a {}?",
    "is there a {} in the image?",
    "does the image contain a {}?",
    "is a {} present?",
)
_ABSENCE = (
    "is there not a {}?",
    "is there not a {} in the image?",
    "does the image not contain a {}?",
    "is no {} present?",
)
_COLOUR_OF = (
    "what color is the {}?",
    "what colour is the {}?",
    "what is the color of the {}?",
    "what is the colour of the {}?",
)
_SHAPE_OF = ("what is the {} shape?", "what shape is {}?")
_WHAT_SHAPE = ("what shape is in the image?", "what shape does the image contain?", "what shape is present?")


@dataclass(frozen=True)
class Question:
    """A question as a user types it, and its one right answer."""

    text: str
    answer: str


def caption(labels: list[tuple[str, str]]) -> str:
    """Name each (colour, kind) in order: "a red circle, a blue triangle and a gray rectangle"."""
    names = [f"a {colour} {kind}" for colour, kind in labels]
    if len(names) == 1:
        return names[0]
    return ", ".join(names[:-1]) + " and " + names[-1]


def scene_caption(scene: Scene) -> str:
    """The caption of a scene, its shapes from left to right."""
    return caption([(shape.colour, shape.kind) for shape in scene.shapes])


def named_shapes(text: str) -> Counter[str]:
    """The shapes that a caption names, as a multiset of "colour kind"; order and joining words are left out."""
    parts = text.strip().lower().replace(" and ", ", ").split(", ")
    return Counter(part.removeprefix("a ").strip() for part in parts)


def scene_questions(scene: Scene, rng: np.random.Generator, number: int) -> list[Question]:
    """Draw `number` questions about the scene, of every kind that has one right answer for it."""
    askers: list[Callable[[Scene, np.random.Generator], Question | None]] = [_presence, _presence, _presence, _count_of]
    if len(scene.shapes) > 1:
        askers.append(_side)
    askers += [_attribute, _attribute]
    questions = [Question(HOW_MANY, str(len(scene.shapes)))] if rng.random() < 0.5 else []
    while len(questions) < number:
        question = askers[int(rng.integers(len(askers)))](scene, rng)
        if question is not None:
            questions.append(question)
    return questions


def _pick(rng: np.random.Generator, options: tuple[str, ...] | list[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _presence(scene: Scene, rng: np.random.Generator) -> Question:
    present = [(shape.colour, shape.kind) for shape in scene.shapes]
    colour, kind = present[int(rng.integers(len(present)))] if rng.random() < 0.6 else LABELS[int(rng.integers(24))]
    if rng.random() < 0.3:  # near misses: the other attribute is right
        colour, kind = (_pick(rng, list(COLOURS)), kind) if rng.random() < 0.5 else (colour, _pick(rng, KINDS))
    form = int(rng.integers(4))
    if form == 0:
        thing, there = f"{colour} shape", any(colour == other for other, _ in present)
    elif form == 1:
        thing, there = kind, any(kind == other for _, other in present)
    else:
        thing, there = f"{colour} {kind}", (colour, kind) in present
    negated = rng.random() < 0.5
    text = _pick(rng, _ABSENCE if negated else _PRESENCE).format(thing)
    return Question(text, "yes" if there != negated else "no")


def _count_of(scene: Scene, rng: np.random.Generator) -> Question:
    if rng.random() < 0.5:
        kind = _pick(rng, KINDS)
        number = sum(shape.kind == kind for shape in scene.shapes)
        return Question(f"how many {kind}s are there?", str(number))
    colour = _pick(rng, [shape.colour for shape in scene.shapes] if rng.random() < 0.7 else list(COLOURS))
    number = sum(shape.colour == colour for shape in scene.shapes)
    return Question(f"how many {colour} shapes are there?", str(number))


def _side(scene: Scene, rng: np.random.Generator) -> Question:
    side, shape = ("left", scene.shapes[0]) if rng.random() < 0.5 else ("right", scene.shapes[-1])
    if rng.random() < 0.5:
        return Question(f"what shape is on the {side}?", shape.kind)
    return Question(f"what {_pick(rng, ('color', 'colour'))} is the shape on the {side}?", shape.colour)


def _attribute(scene: Scene, rng: np.random.Generator) -> Question | None:
    shape = scene.shapes[int(rng.integers(len(scene.shapes)))]
    if len(scene.shapes) == 1 and rng.random() < 0.4:
        if rng.random() < 0.5:
            return Question(_pick(rng, _WHAT_SHAPE), shape.kind)
        return Question(_pick(rng, _COLOUR_OF).format("shape"), shape.colour)
    if rng.random() < 0.5:
        if {other.colour for other in scene.shapes if other.kind == shape.kind} != {shape.colour}:
            return None
        return Question(_pick(rng, _COLOUR_OF).format(shape.kind), shape.colour)
    if {other.kind for other in scene.shapes if other.colour == shape.colour} != {shape.kind}:
        return None
    return Question(_pick(rng, _SHAPE_OF).format(shape.colour), shape.kind)
