"""The Python API is lazy, keeps order, and turns bad images into rows."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blip2cli import Blip2
from blip2cli.errors import UsageError

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


@pytest.fixture(scope="module")
def tiny() -> Blip2:
    return Blip2("tiny", dtype="fp32", batch_size=4, workers=0)


def test_paths_bytes_and_pillow_images_are_captioned_alike(tiny: Blip2) -> None:
    path = EXAMPLES / "red-circle.png"
    with Image.open(path) as image:
        rows = list(tiny.caption([path, str(path), path.read_bytes(), image, None]))
    assert [row.get("caption") for row in rows] == ["a red circle"] * 4 + [None]
    assert [row["image"] for row in rows] == [str(path), str(path), "#2", "#3", "#4"]
    assert rows[-1]["error"] == "missing: None is not an image"


def test_images_are_taken_as_rows_are_asked_for(tiny: Blip2) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield EXAMPLES / "red-circle.png"

    rows = tiny.answer(endless(), ["is there a circle?", "what colour is the circle?"])
    assert [next(rows)["answer"] for _ in range(4)] == ["yes", "red"] * 2
    assert taken < 200


def test_features_are_arrays(tiny: Blip2) -> None:
    row = next(tiny.embed([EXAMPLES / "red-circle.png"], store="fp16"))
    assert row["features"].shape == (8, 128) and row["features"].dtype == np.float16
    assert next(tiny.embed([EXAMPLES / "red-circle.png"], features="vision"))["features"].shape == (128,)


@pytest.mark.parametrize("made", [str, Path, Path.read_bytes, Image.open], ids=["str", "path", "bytes", "Pillow"])
def test_one_image_need_not_be_in_a_list(tiny: Blip2, made: Callable[[Path], Any]) -> None:
    assert [row["caption"] for row in tiny.caption(made(EXAMPLES / "teal-triangle.png"))] == ["a teal triangle"]


def test_wrong_settings_are_named(tiny: Blip2) -> None:
    with pytest.raises(UsageError, match="num-captions"):
        tiny.caption([], num_captions=2)
