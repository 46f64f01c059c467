"""Scenes: one to three coloured shapes on a light background, drawn with Pillow, the same for the same seed.

What is said about a scene (captions, questions, answers) lives in `phrases`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

CANVAS = 64
"""Side, in pixels, of the canvas that positions and sizes refer to."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "black": (0, 0, 0),
    "gray": (128, 128, 128),
    "teal": (0, 128, 128),
    "brown": (165, 42, 42),
    "yellow": (255, 255, 0),
}
KINDS: tuple[str, ...] = ("circle", "rectangle", "triangle")
LABELS: list[tuple[str, str]] = [(colour, kind) for colour in COLOURS for kind in KINDS]
"""Every colour with every kind of shape; a shape's label is its index here."""

_LARGEST = {1: 32.0, 2: 26.0, 3: 22.0}
_SMALLEST = 12.0
_GAP = 1.5  # least distance between two boxes, so that no shape covers another
_CENTRE_GAP = 7.0  # least distance between two x-centres, so that left-to-right order is plain to see
_OVERSAMPLING = 4


@dataclass(frozen=True)
class Shape:
    """One shape: its box on the 64 x 64 canvas, and the exact colour it is painted in."""

    colour: str
    kind: str
    box: tuple[float, float, float, float]
    paint: tuple[int, int, int]

    @property
    def centre(self) -> float:
        """Middle of the box from left to right, in canvas pixels."""
        return (self.box[0] + self.box[2]) / 2

    @property
    def label(self) -> int:
        """Index into `LABELS`."""
        return LABELS.index((self.colour, self.kind))


@dataclass(frozen=True)
class Scene:
    """Shapes in left-to-right order, and a background running from one colour at the top to another at the bottom."""

    shapes: tuple[Shape, ...]
    top: tuple[int, int, int]
    bottom: tuple[int, int, int]
    grain: float
    grain_seed: int


def scene_stream(seed: int, counts: tuple[int, ...] = (1, 2, 3)) -> Iterator[Scene]:
    """Yield scenes for ever, with `counts[0]`, `counts[1]`, ... shapes in turn; scene i depends on seed and i alone."""
    index = 0
    while True:
        yield random_scene(np.random.default_rng((seed, index)), counts[index % len(counts)])
        index += 1


def random_scene(rng: np.random.Generator, count: int, labels: Sequence[tuple[str, str]] = tuple(LABELS)) -> Scene:
    """Draw a scene of `count` shapes of these labels.

    Six in ten have easy-VQA's plain look, the others may have gradients and grain.
    """
    plain = rng.random() < 0.6
    shapes = tuple(sorted(_place_shapes(rng, count, plain, labels), key=lambda shape: shape.centre))
    darkest = 228 if plain else 165
    top = _light_colour(rng, darkest, shapes)
    bottom = top if plain or rng.random() < 0.4 else _light_colour(rng, darkest, shapes)
    grain = 0.0 if plain or rng.random() < 0.5 else float(rng.uniform(1, 7))
    return Scene(shapes, top, bottom, grain, int(rng.integers(2**31)))


def render(scene: Scene, size: int = CANVAS) -> Image.Image:
    """Draw the scene as an RGB image of size x size pixels."""
    image = Image.fromarray(_background(scene, size))
    for shape, mask in zip(scene.shapes, shape_masks(scene, size), strict=True):
        image.paste(shape.paint, mask=mask)
    return image


def shape_masks(scene: Scene, size: int = CANVAS) -> list[Image.Image]:
    """Each shape's coverage, 0 to 255, as a greyscale image of size x size pixels."""
    return [_mask(shape, size) for shape in scene.shapes]


def _place_shapes(rng: np.random.Generator, count: int, plain: bool, labels: Sequence[tuple[str, str]]) -> list[Shape]:
    shapes: list[Shape] = []
    attempts = 0
    while len(shapes) < count:
        attempts += 1
        if attempts % 60 == 0:
            shapes.clear()
        shape = _random_shape(rng, _LARGEST[count], plain, labels)
        if all(_apart(shape, other) for other in shapes):
            shapes.append(shape)
    return shapes


def _random_shape(rng: np.random.Generator, largest: float, plain: bool, labels: Sequence[tuple[str, str]]) -> Shape:
    colour, kind = labels[int(rng.integers(len(labels)))]
    width = height = float(rng.uniform(_SMALLEST, largest))
    if kind == "rectangle":
        height = float(rng.uniform(max(_SMALLEST, width * 0.5), min(largest, width * 2)))
    elif kind == "triangle":
        height = width * (0.87 if plain else float(rng.uniform(0.75, 1.1)))
    left = float(rng.uniform(0, CANVAS - width))
    upper = float(rng.uniform(0, CANVAS - height))
    jitter = 0 if plain else 14
    paint = _clipped(np.array(COLOURS[colour]) + rng.integers(-jitter, jitter + 1, 3))
    return Shape(colour, kind, (left, upper, left + width, upper + height), paint)


def _apart(one: Shape, other: Shape) -> bool:
    beside = one.box[2] + _GAP <= other.box[0] or other.box[2] + _GAP <= one.box[0]
    above = one.box[3] + _GAP <= other.box[1] or other.box[3] + _GAP <= one.box[1]
    return (beside or above) and abs(one.centre - other.centre) >= _CENTRE_GAP


def _light_colour(rng: np.random.Generator, darkest: int, shapes: tuple[Shape, ...]) -> tuple[int, int, int]:
    while True:
        colour = _clipped(rng.integers(darkest, 256, 3))
        if all(np.linalg.norm(np.subtract(colour, shape.paint)) >= 90 for shape in shapes):
            return colour


def _clipped(values: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = np.clip(values, 0, 255).tolist()
    return int(red), int(green), int(blue)


def _background(scene: Scene, size: int) -> np.ndarray:
    ramp = np.linspace(0, 1, size)[:, None, None]
    pixels = np.array(scene.top) * (1 - ramp) + np.array(scene.bottom) * ramp
    pixels = np.broadcast_to(pixels, (size, size, 3))
    if scene.grain:
        pixels = pixels + np.random.default_rng(scene.grain_seed).normal(0, scene.grain, (size, size, 3))
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _mask(shape: Shape, size: int) -> Image.Image:
    scale = size * _OVERSAMPLING / CANVAS
    left, upper, right, lower = (edge * scale for edge in shape.box)
    mask = Image.new("L", (size * _OVERSAMPLING, size * _OVERSAMPLING))
    draw = ImageDraw.Draw(mask)
    if shape.kind == "circle":
        draw.ellipse((left, upper, right, lower), fill=255)
    elif shape.kind == "rectangle":
        draw.rectangle((left, upper, right, lower), fill=255)
    else:
        draw.polygon([((left + right) / 2, upper), (right, lower), (left, lower)], fill=255)
    return mask.reduce(_OVERSAMPLING)
