"""Scenes are the same for the same seed, well-formed, and captioned and questioned truthfully."""

from itertools import islice, pairwise

import numpy as np
import pytest

from blip2cli.tiny.examples import BACKGROUND, UNKNOWN, patch_targets
from blip2cli.tiny.phrases import ANSWERS, HOW_MANY, caption, named_shapes, scene_caption, scene_questions
from blip2cli.tiny.scenes import CANVAS, LABELS, Scene, render, scene_stream

SCENES = list(islice(scene_stream(11), 60))


def test_the_same_seed_draws_the_same_pixels() -> None:
    again = islice(scene_stream(11), 60)
    assert all(render(one).tobytes() == render(other).tobytes() for one, other in zip(SCENES, again, strict=True))


def test_another_seed_draws_other_scenes() -> None:
    others = set(islice(scene_stream(12), 60))
    assert not others & set(SCENES)


def test_counts_come_in_turn() -> None:
    assert [len(scene.shapes) for scene in SCENES[:6]] == [1, 2, 3, 1, 2, 3]


def test_shapes_stand_in_order_inside_the_canvas_without_overlap() -> None:
    for scene in SCENES:
        centres = [shape.centre for shape in scene.shapes]
        assert all(right - left >= 7 for left, right in pairwise(centres))
        assert all(0 <= edge <= CANVAS for shape in scene.shapes for edge in shape.box)


@pytest.mark.parametrize("size", [64, 256])
def test_a_shape_is_painted_where_its_box_is(size: int) -> None:
    for scene in SCENES[:12]:
        pixels = np.asarray(render(scene, size))
        for shape in scene.shapes:
            row = int((shape.box[1] + shape.box[3]) / 2 * size / CANVAS)
            assert tuple(pixels[row, int(shape.centre * size / CANVAS)]) == shape.paint


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ([("red", "circle")], "a red circle"),
        ([("red", "circle"), ("blue", "triangle")], "a red circle and a blue triangle"),
        (
            [("red", "circle"), ("blue", "triangle"), ("gray", "rectangle")],
            "a red circle, a blue triangle and a gray rectangle",
        ),
    ],
)
def test_captions_read_well(labels: list[tuple[str, str]], text: str) -> None:
    assert caption(labels) == text
    assert sorted(named_shapes(text).elements()) == sorted(" ".join(label) for label in labels)


def test_captions_name_every_shape_from_left_to_right() -> None:
    for scene in SCENES:
        words = scene_caption(scene).replace(",", "").replace(" and", "").split()
        assert words == [word for shape in scene.shapes for word in ("a", shape.colour, shape.kind)]


def test_answers_are_true() -> None:
    rng = np.random.default_rng(3)
    asked = [(scene, question) for scene in SCENES for question in scene_questions(scene, rng, 6)]
    assert {question.answer for _, question in asked} == set(ANSWERS)
    for scene, question in asked:
        if question.text == HOW_MANY:
            assert question.answer == str(len(scene.shapes))
        elif question.answer in ("yes", "no"):
            assert (question.answer == "yes") == _truth(scene, question.text)


def _truth(scene: Scene, text: str) -> bool:
    """The answer worked out from the words of the question alone."""
    words = text.rstrip("?").split()
    negated = "not" in words or "no" in words
    colours = [word for word in words if any(word == colour for colour, _ in LABELS)]
    kinds = [word for word in words if any(word == kind for _, kind in LABELS)]
    there = any((not colours or s.colour in colours) and (not kinds or s.kind in kinds) for s in scene.shapes)
    return there != negated


def test_patch_targets_name_each_shape_and_its_place() -> None:
    for scene in SCENES:
        labels, ranks = patch_targets(scene)
        assert set(labels) - {BACKGROUND, UNKNOWN} == {shape.label for shape in scene.shapes}
        for place, shape in enumerate(scene.shapes, start=1):
            assert set(labels[ranks == place]) == {shape.label}
