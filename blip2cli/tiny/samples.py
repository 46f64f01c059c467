"""The sample images of the demo: `python -m blip2cli.tiny.samples FOLDER` draws them, the same every time."""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from .phrases import HOW_MANY, scene_questions
from .scenes import Scene, random_scene, render

SAMPLES_SEED = 3_000_181
"""Seed of the samples; training never sees them."""

_SIZE = 256
_COUNTS = (1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3)


def main() -> None:
    """Parse the option and write the samples."""
    parser = argparse.ArgumentParser(prog="python -m blip2cli.tiny.samples", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write: docs/examples")
    write_samples(parser.parse_args().folder)


def write_samples(folder: Path) -> list[Path]:
    """Write twelve images (scenes of several shapes in `scenes/`) and `questions.jsonl`; return the images' paths."""
    (folder / "scenes").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SAMPLES_SEED)
    paths: list[Path] = []
    lines: list[str] = []
    for scene in sample_scenes():
        path = folder / sample_name(scene)
        _save(render(scene, _SIZE), path)
        paths.append(path)
        questions = [asking.text for asking in scene_questions(scene, rng, 2)]
        if len(scene.shapes) > 1 and HOW_MANY not in questions:
            questions[0] = HOW_MANY
        for question in questions:
            row = {"id": len(lines) + 1, "image": path.relative_to(folder).as_posix(), "question": question}
            lines.append(json.dumps(row) + "\n")
    (folder / "questions.jsonl").write_text("".join(lines), encoding="utf-8")
    return paths


def sample_scenes() -> list[Scene]:
    """The twelve scenes: five of one shape, four of two, three of three."""
    return [random_scene(np.random.default_rng((SAMPLES_SEED, index)), count) for index, count in enumerate(_COUNTS)]


def sample_name(scene: Scene) -> str:
    """A path that tells what is to be seen; a grainy one is a JPEG, or it would be large."""
    words = "-".join(f"{shape.colour}-{shape.kind}" for shape in scene.shapes)
    folder = "scenes/" if len(scene.shapes) > 1 else ""
    return f"{folder}{words}{'.jpg' if scene.grain else '.png'}"


def _save(image: Image.Image, path: Path) -> None:
    if path.suffix == ".jpg":
        image.save(path, quality=90)
    else:
        image.save(path, optimize=True)


if __name__ == "__main__":
    main()
