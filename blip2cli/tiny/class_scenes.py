"""Held-out scenes to classify: `python -m blip2cli.tiny.class_scenes FOLDER`.

Writes images, `classes.txt` with all that such scenes can show, one on each line, and `truth.csv` with the class of
each image in its column `label`. A class names the shapes in no particular order: 24 classes of one shape, 300 of two,
2,600 of three.
"""

import argparse
import csv
from itertools import combinations_with_replacement, islice
from pathlib import Path

from .accuracy import ACCURACY_SEED
from .phrases import caption
from .scenes import LABELS, Scene, render, scene_stream


def main() -> None:
    """Parse the options, and write the files."""
    parser = argparse.ArgumentParser(prog="python -m blip2cli.tiny.class_scenes", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder to create")
    parser.add_argument("--scenes", type=int, default=1000, help="scenes to write (default: 1,000)")
    parser.add_argument("--shapes", type=int, default=1, choices=(1, 2, 3), help="shapes of each scene (default: 1)")
    options = parser.parse_args()
    write_scenes(options.folder, options.scenes, options.shapes)


def class_of(labels: tuple[int, ...]) -> str:
    """The class of a scene with shapes of these labels, such as "red circle and a blue triangle"."""
    return caption([LABELS[label] for label in sorted(labels)]).removeprefix("a ")


def write_scenes(folder: Path, number: int, shapes: int) -> None:
    """Write scenes, which training never sees, with their classes."""
    (folder / "images").mkdir(parents=True)
    classes = map(class_of, combinations_with_replacement(range(len(LABELS)), shapes))
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    with open(folder / "truth.csv", "w", encoding="utf-8", newline="") as file:
        truth = csv.writer(file)
        truth.writerow(("image", "label"))
        for index, scene in enumerate(islice(scene_stream(ACCURACY_SEED, (shapes,)), number)):
            name = f"images/{index:05}.png"
            render(scene).save(folder / name)
            truth.writerow((name, _class_of_scene(scene)))


def _class_of_scene(scene: Scene) -> str:
    return class_of(tuple(shape.label for shape in scene.shapes))


if __name__ == "__main__":
    main()
