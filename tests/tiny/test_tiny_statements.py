"""Statements are true or false by what they name, and are worded in ways that do not change what they say."""

from dataclasses import replace
from itertools import combinations, islice

import numpy as np
import pytest

from blip2cli.tiny.phrases import scene_caption
from blip2cli.tiny.scenes import COLOURS, KINDS, LABELS, Scene, random_scene, scene_stream
from blip2cli.tiny.statements import (
    Thing,
    false_statement,
    full_statement,
    partial_statement,
    told,
    wording,
)

SCENES = list(islice(scene_stream(17), 60))
RED_CIRCLE, CIRCLE, RED, SHAPE = Thing("red", "circle"), Thing(None, "circle"), Thing("red", None), Thing(None, None)


def scene_of(*labels: tuple[str, str]) -> Scene:
    """A scene of exactly these shapes, in some order."""
    for seed in range(1000):
        scene = random_scene(np.random.default_rng(seed), len(labels), labels)
        if sorted((shape.colour, shape.kind) for shape in scene.shapes) == sorted(labels):
            return scene
    raise AssertionError(labels)


@pytest.mark.parametrize(
    ("things", "alone", "beside_a_blue_triangle", "beside_a_blue_circle"),
    [
        ((RED_CIRCLE,), 1, 1 / 2, 1 / 2),
        ((CIRCLE,), 2 / 3, 1 / 3, 1 / 3),
        ((RED,), 2 / 3, 1 / 3, 1 / 3),
        ((SHAPE,), 1 / 3, 1 / 6, 1 / 6),
        ((CIRCLE, CIRCLE), 0, 0, 2 / 3),
        ((CIRCLE, RED), 0, 0, 2 / 3),
        ((RED, Thing("blue", "triangle")), 0, 5 / 6, 0),
        ((Thing("blue", "triangle"), RED_CIRCLE), 0, 1, 0),
        ((Thing("blue", "circle"), Thing("red", "triangle")), 0, 0, 0),
        ((SHAPE, SHAPE, SHAPE), 0, 0, 0),
    ],
)
def test_a_statement_tells_the_more_the_less_else_there_is(
    things: tuple[Thing, ...], alone: float, beside_a_blue_triangle: float, beside_a_blue_circle: float
) -> None:
    red = ("red", "circle")
    scenes = [scene_of(red), scene_of(red, ("blue", "triangle")), scene_of(red, ("blue", "circle"))]
    np.testing.assert_allclose(told([things], scenes)[0], [alone, beside_a_blue_triangle, beside_a_blue_circle])


def test_full_and_partial_statements_are_true_and_false_ones_are_not() -> None:
    rng = np.random.default_rng(1)
    assert (np.diag(told([full_statement(scene) for scene in SCENES], SCENES)) == 1).all()
    assert (np.diag(told([partial_statement(scene, rng) for scene in SCENES], SCENES)) > 0).all()
    assert (np.diag(told([false_statement(scene, rng) for scene in SCENES], SCENES)) == 0).all()


def test_a_false_statement_of_several_things_is_one_thing_or_two_swapped_colours_away_from_true() -> None:
    rng = np.random.default_rng(2)
    for scene in SCENES:
        things = false_statement(scene, rng)
        nearby = [things[:place] + things[place + 1 :] for place in range(len(things))]
        for one, other in combinations(range(len(things)), 2):
            swapped = list(things)
            swapped[one] = replace(things[one], colour=things[other].colour)
            swapped[other] = replace(things[other], colour=things[one].colour)
            nearby.append(tuple(swapped))
        assert len(things) == 1 or told(nearby, [scene]).any()


def test_every_wording_names_the_same_things() -> None:
    rng = np.random.default_rng(3)
    for scene in SCENES:
        wanted = sorted(word for shape in scene.shapes for word in (shape.colour, shape.kind))
        for _ in range(5):
            assert sorted(_words(wording(full_statement(scene), rng))) == wanted


def _words(text: str) -> list[str]:
    """The colours and kinds that a text names, each as often as its number words say."""
    words = text.replace("grey", "gray").replace(",", "").rstrip(".").split()
    found, number = [], 1
    for word in words:
        number = {"two": 2, "three": 3, "a": 1, "and": 1, "one": 1, "the": 1}.get(word, number)
        if word in COLOURS:
            found += [word] * number
        elif word.rstrip("s") in KINDS:
            found += [word.rstrip("s")] * number
            number = 1
    return found


def test_wording_can_be_the_caption_and_just_a_noun() -> None:
    rng = np.random.default_rng(4)
    scene = SCENES[1]
    texts = {wording(full_statement(scene), rng) for _ in range(300)}
    assert scene_caption(scene) in texts and len(texts) > 100
    assert {"circle", "circles", "a circle", "there is a circle."} <= {wording((CIRCLE,), rng) for _ in range(3000)}
    assert {"two red circles"} <= {wording((RED_CIRCLE, RED_CIRCLE), rng) for _ in range(100)}


def test_scenes_can_keep_to_some_labels() -> None:
    rng = np.random.default_rng(5)
    drawn = {shape.label for _ in range(30) for shape in random_scene(rng, 3, LABELS[4:6]).shapes}
    assert drawn == {4, 5}
