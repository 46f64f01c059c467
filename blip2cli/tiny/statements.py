"""Statements: what a caption or a search query says is there, whether it is true of a scene, and how it is worded.

A statement is true of a scene if each thing that it names can be found there as a shape of its own. It leaves open
what else is there: "a red circle" is true of a red circle beside a blue triangle, and says less about that scene than
about a red circle alone (`told`). The order does not matter; "two circles" means at least two, "circles" at least one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from .scenes import COLOURS, KINDS, LABELS, Scene

MAX_THINGS = 3
_NOTHING = len(LABELS)  # label of a shape that is not there

_PREFIXES = (
    *("a photo of", "a picture of", "an image of", "picture of", "image of", "this is", "there is", "it is"),
    *("the image contains", "this picture contains"),
)
_ARTICLES = ("a", "", "one", "the")
_ARTICLE_SHARES = (0.7, 0.2, 0.05, 0.05)
_NUMBERS = {2: "two", 3: "three"}
_SPELLINGS = {"gray": ("gray", "grey")}


@dataclass(frozen=True)
class Thing:
    """One thing that a statement names: any colour, or any kind, where that is None."""

    colour: str | None
    kind: str | None

    @property
    def detail(self) -> float:
        """How much it tells of a shape: "a shape" 1/3, "a circle" and "a red shape" 2/3, "a red circle" 1."""
        return (1 + (self.colour is not None) + (self.kind is not None)) / 3

    def fits(self, colour: str, kind: str) -> bool:
        """Whether a shape of this colour and kind is such a thing."""
        return self.colour in (None, colour) and self.kind in (None, kind)


Statement = tuple[Thing, ...]
"""One to three things."""


def full_statement(scene: Scene) -> Statement:
    """Every shape of the scene with colour and kind, from left to right."""
    return tuple(Thing(shape.colour, shape.kind) for shape in scene.shapes)


def partial_statement(scene: Scene, rng: np.random.Generator) -> Statement:
    """Some of the shapes, each with or without its colour or kind."""
    number = int(rng.integers(1, len(scene.shapes) + 1))
    chosen = [full_statement(scene)[int(index)] for index in rng.permutation(len(scene.shapes))[:number]]
    return tuple(_vaguer(thing, rng) for thing in chosen)


def false_statement(scene: Scene, rng: np.random.Generator) -> Statement:
    """A statement that was true until a colour, a kind or a number in it was changed, or two colours swapped."""
    while True:
        statement = full_statement(scene) if rng.random() < 0.5 else partial_statement(scene, rng)
        changed = _changed(statement, rng)
        if not told([changed], [scene])[0, 0]:
            return changed


def told(statements: Sequence[Statement], scenes: Sequence[Scene]) -> np.ndarray:
    """How much each statement tells of each scene, [statements, scenes]: 1 is everything, 0 means that it is false."""
    labels = np.array(
        [[*(shape.label for shape in scene.shapes), *[_NOTHING] * MAX_THINGS][:MAX_THINGS] for scene in scenes]
    )
    fitting = np.stack([_fitting(statement) for statement in statements])  # [T, MAX_THINGS, labels]
    fits = fitting[:, :, labels]  # [T, MAX_THINGS, S, MAX_THINGS]
    true = np.zeros((len(statements), len(scenes)), dtype=bool)
    for order in permutations(range(MAX_THINGS)):
        true |= np.logical_and.reduce([fits[:, thing, :, place] for thing, place in enumerate(order)])
    detail = np.array([sum(thing.detail for thing in statement) for statement in statements])
    return true * detail[:, None] / np.array([len(scene.shapes) for scene in scenes])


def wording(statement: Statement, rng: np.random.Generator) -> str:
    """One of many ways to say it: with or without article, number words, an opening, and in any order."""
    things = [statement[int(index)] for index in rng.permutation(len(statement))] if rng.random() < 0.5 else statement
    numbers = Counter(things) if rng.random() < 0.6 else None
    names = [_named(thing, number, rng) for thing, number in (numbers.items() if numbers else ((t, 1) for t in things))]
    opening = f"{_PREFIXES[int(rng.integers(len(_PREFIXES)))]} " if rng.random() < 0.4 else ""
    return opening + _joined(names, rng) + ("." if rng.random() < 0.1 else "")


def _fitting(statement: Statement) -> np.ndarray:
    """For each place of a statement, which labels fit it; a place without a thing takes any, or none."""
    fitting = np.ones((MAX_THINGS, _NOTHING + 1), dtype=bool)
    for place, thing in enumerate(statement):
        fitting[place] = [*(thing.fits(*label) for label in LABELS), False]
    return fitting


def _vaguer(thing: Thing, rng: np.random.Generator) -> Thing:
    draw = rng.random()
    if draw < 0.5:
        return thing
    if draw < 0.95:
        return replace(thing, colour=None) if rng.random() < 0.5 else replace(thing, kind=None)
    return Thing(None, None)


def _changed(statement: Statement, rng: np.random.Generator) -> Statement:
    things = list(statement)
    place = int(rng.integers(len(things)))
    draw = rng.random()
    if len(things) > 1 and draw < 0.4:
        other = (place + 1) % len(things)
        one, two = things[place], things[other]
        things[place], things[other] = replace(one, colour=two.colour), replace(two, colour=one.colour)
    elif draw < 0.6:
        things[place] = replace(things[place], colour=_pick(rng, tuple(COLOURS)))
    elif draw < 0.8:
        things[place] = replace(things[place], kind=_pick(rng, KINDS))
    elif len(things) < MAX_THINGS:
        more = things[place] if rng.random() < 0.5 else Thing(_pick(rng, tuple(COLOURS)), _pick(rng, KINDS))
        things.insert(int(rng.integers(len(things) + 1)), more)
    return tuple(things)


def _named(thing: Thing, number: int, rng: np.random.Generator) -> str:
    colour = _pick(rng, _SPELLINGS.get(thing.colour, (thing.colour,))) if thing.colour else ""
    kind = thing.kind or "shape"
    article = str(rng.choice(_ARTICLES, p=_ARTICLE_SHARES))
    if number > 1:
        words = (_NUMBERS[number], colour, f"{kind}s")
    else:
        words = (article, colour, f"{kind}s" if not article and rng.random() < 0.25 else kind)
    return " ".join(word for word in words if word)


def _joined(names: list[str], rng: np.random.Generator) -> str:
    draw = rng.random()
    if draw < 0.15:
        return ", ".join(names)
    if draw < 0.3 or len(names) == 1:
        return " and ".join(names)
    return ", ".join(names[:-1]) + " and " + names[-1]


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]
