"""Whether maps of --explain point at what a text names: `python -m blip2cli.commands.bench.pointing`.

A map points at a shape if the middle of its highest patch lies on the shape; it touches the shape if any of that patch
does. The bundled models see held-out scenes of two and of three shapes: they are matched with texts, captioned, and
asked for the colours and kinds of their shapes. Beside each figure stands that of the same networks with random
weights, and chance: the share of all patches of which the same is true. Prints a Markdown table, in per cent.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from blip2cli.api import Blip2
from blip2cli.tiny import MODEL_DIR, RETRIEVAL_DIR
from blip2cli.tiny.scenes import Scene, Shape, render, scene_stream, shape_masks

POINTING_SEED = 2_000_003
"""Seed of the scenes measured here; training and validation never see them."""

COVERED = 128
"""How much of a pixel a shape covers that a map may point at, of 255."""


@dataclass
class Pointed:
    """Of each map whether it points at its shape, and whether it touches it; and the share of patches that do."""

    points: list[bool] = field(default_factory=list)
    touches: list[bool] = field(default_factory=list)
    chances: list[tuple[float, float]] = field(default_factory=list)

    def add(self, heights: np.ndarray, mask: np.ndarray) -> None:
        """Add one map [rows, columns], with the pixels [side, side] at which it should point."""
        middles, touched = patches_of(mask, heights.shape)
        highest = np.unravel_index(heights.argmax(), heights.shape)
        self.points.append(bool(middles[highest]))
        self.touches.append(bool(touched[highest]))
        self.chances.append((float(middles.mean()), float(touched.mean())))


Figures = dict[str, Pointed]


def patches_of(mask: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Of each patch [rows, columns], whether its middle lies on a mask [side, side], and whether any of it does."""
    rows, columns = shape
    height, width = mask.shape[0] // rows, mask.shape[1] // columns
    patches = mask.reshape(rows, height, columns, width)
    touched: np.ndarray = patches.max(axis=(1, 3))
    return patches[:, height // 2, :, width // 2], touched


def scenes_of(number: int) -> list[Scene]:
    """Held-out scenes, of two and of three shapes in turn."""
    return list(islice(scene_stream(POINTING_SEED, (2, 3)), number))


def masks_of(scene: Scene) -> list[np.ndarray]:
    """The pixels [side, side] of each shape."""
    return [np.asarray(mask) >= COVERED for mask in shape_masks(scene)]


def of_match(model: Blip2, scenes: Sequence[Scene]) -> Figures:
    """Texts that name one shape; and each colour and kind, as words of texts that name all shapes."""
    figures: Figures = defaultdict(Pointed)
    for scene in scenes:
        image, masks = render(scene), masks_of(scene)
        named = [(shape, mask) for shape, mask in zip(scene.shapes, masks, strict=True) if is_alone(shape, scene)]
        texts = [f"a {shape.colour} {shape.kind}" for shape, _ in named]
        rows = model.match(image, texts, explain=True) if texts else ()
        for row, (_, mask) in zip(rows, named, strict=True):
            figures["match: a text that names one shape"].add(row["map"], mask)
        whole = " and ".join(f"a {shape.colour} {shape.kind}" for shape in scene.shapes)
        (row,) = model.match(image, whole, explain_words=True)
        _add_words(figures, "match", row, scene, masks)
    return figures


def of_caption(model: Blip2, scenes: Sequence[Scene]) -> Figures:
    """Whole captions, which should point at any shape, and their words, of captions that are right."""
    figures: Figures = defaultdict(Pointed)
    for scene in scenes:
        masks = masks_of(scene)
        (row,) = model.caption(render(scene), explain_words=True)
        if row["map"] is None:  # random weights may write nothing
            continue
        figures["caption: a whole caption, at any shape"].add(row["map"], np.any(masks, axis=0))
        _add_words(figures, "caption", row, scene, masks)
    return figures


def of_answers(model: Blip2, scenes: Sequence[Scene]) -> Figures:
    """Answers to questions about one shape."""
    figures: Figures = defaultdict(Pointed)
    for scene in scenes:
        asked = list(_questions(scene))
        rows = model.answer(render(scene), [question for question, _ in asked], explain=True) if asked else ()
        for row, (_, mask) in zip(rows, asked, strict=True):
            if row["map"] is not None:
                figures["vqa: an answer about one shape"].add(row["map"], mask)
    return figures


def is_alone(shape: Shape, scene: Scene) -> bool:
    """Whether no other shape of a scene has its colour and kind."""
    return sum(other.label == shape.label for other in scene.shapes) == 1


def _add_words(figures: Figures, name: str, row: dict[str, Any], scene: Scene, masks: Sequence[np.ndarray]) -> None:
    """Add the maps of words that are a colour or a kind of exactly one of the shapes."""
    words = [word.strip(",.") for word in row["words"]]
    maps = np.array(row["word_maps"]).reshape(len(words), *row["map"].shape)
    for what in ("colour", "kind"):
        values = [getattr(shape, what) for shape in scene.shapes]
        for value, mask in zip(values, masks, strict=True):
            if values.count(value) == words.count(value) == 1:
                figures[f"{name}: a {what}, as a word of all shapes"].add(maps[words.index(value)], mask)


def _questions(scene: Scene) -> Iterator[tuple[str, np.ndarray]]:
    """Questions with one right answer, and the pixels of the shape that each is about."""
    kinds, colours = ([getattr(shape, what) for shape in scene.shapes] for what in ("kind", "colour"))
    for shape, mask in zip(scene.shapes, masks_of(scene), strict=True):
        if kinds.count(shape.kind) == 1:
            yield f"what color is the {shape.kind}?", mask
        if colours.count(shape.colour) == 1:
            yield f"what is the {shape.colour} shape?", mask


MEASURES: tuple[Callable[[Blip2, Sequence[Scene]], Figures], ...] = (of_match, of_caption, of_answers)


def measure(scenes: Sequence[Scene], trained: Blip2, captioner: Blip2, retrieval: Blip2) -> tuple[Figures, Figures]:
    """The figures of the bundled models, and of those with random weights."""
    figures: Figures = {}
    of_random: Figures = {}
    for of_task in MEASURES:
        figures |= of_task(trained, scenes)
        of_random |= of_task(retrieval if of_task is of_match else captioner, scenes)
    return figures, of_random


def write_random(folder: Path) -> tuple[Path, Path]:
    """The bundled networks with the weights that training begins with, in two folders below this one."""
    from transformers import PreTrainedTokenizerFast

    from blip2cli.tiny.architecture import export, new_model, new_retrieval_model

    tokenizer, reader = map(PreTrainedTokenizerFast.from_pretrained, (MODEL_DIR, RETRIEVAL_DIR))
    captioner = new_model(tokenizer, seed=0)
    export(captioner, tokenizer, folder / "captioner")
    export(new_retrieval_model(reader, captioner, seed=0), reader, folder / "retrieval")
    return folder / "captioner", folder / "retrieval"


def table(figures: Figures, of_random: Figures) -> str:
    """A Markdown table of the figures."""
    heads = ("map of", "maps", "points", "random weights", "chance", "touches", "random weights", "chance")
    lines = [" | ".join(("", *heads, "")).strip(), "|" + "---|" * len(heads)]
    for name, figure in figures.items():
        other = of_random.get(name, Pointed())
        by_chance = list(zip(*figure.chances, strict=True))
        cells = [name, str(len(figure.points))]
        for ours, theirs, chances in (
            (figure.points, other.points, by_chance[0]),
            (figure.touches, other.touches, by_chance[1]),
        ):
            cells += map(_per_cent, (ours, theirs, chances))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _per_cent(shares: Sequence[float]) -> str:
    """The mean in per cent; a dash where there is nothing to take it of."""
    return f"{100 * float(np.mean(shares)):.1f}" if shares else "–"


def main() -> None:
    """Parse the options, measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m blip2cli.commands.bench.pointing", description=__doc__)
    parser.add_argument("--scenes", type=int, default=400, help="half of them with three shapes (default: 400)")
    parser.add_argument("--dtype", default="fp32", help="precision (default: fp32)")
    options = parser.parse_args()
    scenes = scenes_of(options.scenes)
    arguments: dict[str, Any] = {"dtype": options.dtype, "workers": 0}
    with tempfile.TemporaryDirectory() as folder:
        captioner, retrieval = (Blip2(str(path), **arguments) for path in write_random(Path(folder)))
        figures, of_random = measure(scenes, Blip2("tiny", **arguments), captioner, retrieval)
    print(table(figures, of_random))


if __name__ == "__main__":
    main()
