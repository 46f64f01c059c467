"""Precision and recall of `blip2 dedup` on images with known copies.

`python -m blip2cli.commands.bench.copies --images FOLDER` makes copies of the photographs in a folder, and measures
which of them are found; without a folder, of rendered scenes. Copies are resized, recompressed, cropped and mirrored.

A pair is an original and one of its copies, or two different originals. Recall is the share of the pairs of the first
kind with a cosine of at least the threshold; precision the share of these among all pairs that have it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from blip2cli.api import Blip2
from blip2cli.features.duplicates import units_of

THRESHOLDS = (0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)
SCENES = 60
LEAST = 128
"""Pixels of the shorter side of an image that is used."""


def resized(image: Image.Image) -> Image.Image:
    return image.resize((max(image.width // 2, 1), max(image.height // 2, 1)), Image.Resampling.LANCZOS)


def recompressed(image: Image.Image) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=30)
    return Image.open(buffer).convert("RGB")


def cropped(image: Image.Image) -> Image.Image:
    """Without a twentieth at each side."""
    width, height = image.size
    return image.crop((width // 20, height // 20, width - width // 20, height - height // 20))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "resized": resized,
    "recompressed": recompressed,
    "cropped": cropped,
    "mirrored": ImageOps.mirror,
}


def main() -> None:
    """Print what is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of photographs; without it, scenes are rendered")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--features", nargs="+", default=["itc", "qformer", "vision"])
    arguments = parser.parse_args()
    originals = list(photographs(arguments.images) if arguments.images else scenes())
    print(f"{len(originals)} originals, {len(COPIES)} copies of each, model {arguments.model}")
    images = [image for original in originals for image in (original, *(copy(original) for copy in COPIES.values()))]
    model = Blip2(arguments.model, dtype="fp32")
    for features in arguments.features:
        rows = list(model.embed(images, features=features))
        vectors, _ = units_of(np.stack([row["features"] for row in rows]))
        show(features, vectors.reshape(len(originals), 1 + len(COPIES), -1))


def show(features: str, vectors: np.ndarray) -> None:
    """Print a table; vectors are [originals, 1 + copies, width]."""
    first = vectors[:, 0]
    copies = np.einsum("ncw,nw->nc", vectors[:, 1:], first)
    others = (first @ first.T)[np.triu_indices(len(first), 1)]
    print(f"\n{features}: different originals have {np.median(others):.3f} at the median, {others.max():.4f} at most")
    print("| threshold | recall | " + " | ".join(COPIES) + " | different originals | precision |")
    for threshold in THRESHOLDS:
        found, wrong = copies >= threshold, int((others >= threshold).sum())
        shares = " | ".join(f"{100 * share:.0f} %" for share in found.mean(0))
        precision = found.sum() / max(found.sum() + wrong, 1)
        print(
            f"| {threshold} | {100 * found.mean():.1f} % | {shares} | {wrong} of {len(others):,} | "
            f"{100 * precision:.1f} % |"
        )


def photographs(folder: Path) -> Iterator[Image.Image]:
    """The images in a folder that are large enough, in RGB."""
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            if min(image.size) >= LEAST:
                yield image.convert("RGB")


def scenes() -> Iterator[Image.Image]:
    """Scenes of one to three shapes, as those that the bundled model was trained on."""
    from blip2cli.tiny.scenes import random_scene, render

    rng = np.random.default_rng(7)
    for number in range(SCENES):
        yield render(random_scene(rng, 1 + number % 3)).convert("RGB")


if __name__ == "__main__":
    main()
