"""Rows come out as soon as they can, whatever goes in."""

import gc
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import pytest

from blip2cli import Blip2
from blip2cli.records import Row

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture(scope="module")
def model() -> Blip2:
    return Blip2("tiny", dtype="fp32", batch_size=8, workers=0)


@pytest.mark.parametrize("good", [0, 3])
def test_error_rows_without_end_come_out_and_hold_nothing_up(good: int) -> None:
    def images() -> Iterator[Path]:
        for number in count():
            yield EXAMPLES / "red-circle.png" if number < good else Path(f"gone{number}.png")

    model = Blip2("tiny", dtype="fp32", batch_size=8, workers=0)
    rows = list(islice(model.caption(images()), 600))
    assert [row["error"] is None for row in rows] == [True] * good + [False] * (600 - good)
    assert [row["image"] for row in rows[good:]] == [f"gone{number}.png" for number in range(good, 600)]


def test_good_images_among_bad_ones_keep_their_places() -> None:
    def image(number: int) -> Path:
        return EXAMPLES / "red-circle.png" if number % 150 == 0 else Path(f"gone{number}.png")

    model = Blip2("tiny", dtype="fp32", batch_size=4, workers=0)
    rows = list(model.caption([image(number) for number in range(1000)]))
    assert [number for number, row in enumerate(rows) if row["error"] is None] == list(range(0, 1000, 150))
    assert all(row["caption"] == "a red circle" for row in rows[::150])


def rows_alive() -> int:
    """The rows in this process."""
    return sum(type(each) is Row for each in gc.get_objects())


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("caption", {}),
        ("caption", {"num_beams": 2}),
        ("caption", {"num_captions": 2, "temperature": 0.5}),
        ("answer", {"question": ["what color is it?", "how many shapes are there?"]}),
        ("answer", {"question": "what color is it?", "choices": ["red", "blue"]}),
        ("embed", {}),
    ],
)
def test_rows_are_given_up_once_they_are_done(model: Blip2, task: str, options: dict) -> None:
    """Without Python's collector of circles, which comes now and then only: rows may hold megabytes of images."""
    gc.collect()
    gc.disable()
    try:
        others = rows_alive()  # of other tests
        rows = getattr(model, task)([EXAMPLES / "red-circle.png"] * 90, **options)
        for _ in islice(rows, 80):
            pass
        kept = rows_alive() - others
    finally:
        gc.enable()
    assert 0 < kept < 70
