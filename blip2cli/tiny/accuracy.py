"""Measure the bundled models as a user runs them: `python -m blip2cli.tiny.accuracy`.

Writes easy-VQA's test split and held-out scenes to a temporary folder, runs `blip2 vqa` and
`blip2 caption` on them for each dtype, and for each int8 kernel that runs here, and prints a
Markdown table of what was right, in per cent. Needs the easy-vqa package. A second table
compares the features of `blip2 embed` with those in the first dtype. A third one is about
retrieval among held-out scenes, with transformers' class in fp32.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import RETRIEVAL_DIR
from .easy_vqa import pictures
from .phrases import HOW_MANY, caption, named_shapes, scene_caption, scene_questions
from .scenes import render, scene_stream

ACCURACY_SEED = 2_000_003
"""Seed of the scenes measured here; training and validation never see them."""

INT8_KERNELS = ("onednn", "onednn-7bit", "dynamic", "dynamic-7bit")
OVERRIDE = "BLIP2_INT8_KERNEL"
"""The environment variable that forces one of these on the CPU."""

_QUESTIONS_PER_SCENE = 4
_SCENE_CAPTIONS = "captions, scenes of {}"
_ALL_SCENE_CAPTIONS = "captions, all scenes"
Features = NDArray[np.float32]
"""[images, num_query_tokens * width], or a number for each image."""

Outcomes = dict[str, list[bool]]
"""For each figure, whether each item was right."""


@dataclass(frozen=True)
class Asked:
    """One row of the VQA manifest; `group` and `reference` are carried through to the output."""

    image: str
    question: str
    reference: str
    group: str


@dataclass(frozen=True)
class Captioned:
    """What the caption of one image should say, and the figure it counts towards."""

    image: str
    reference: str
    group: str


@dataclass(frozen=True)
class Material:
    """Everything written to the folder: images below `root/images`, and the manifest of questions."""

    root: Path
    asked: list[Asked]
    captioned: list[Captioned]


@dataclass(frozen=True)
class Variant:
    """A way to run the model; `kernel` is the int8 kernel that is forced, if any."""

    dtype: str
    kernel: str | None = None

    def __str__(self) -> str:
        return self.dtype if self.kernel is None else f"{self.dtype} {self.kernel}"


def main() -> None:
    """Parse the options, measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m blip2cli.tiny.accuracy", description=__doc__)
    parser.add_argument("--dtype", nargs="+", default=["fp32", "bf16", "int8"], help="dtypes to measure")
    parser.add_argument("--kernels", nargs="*", default=INT8_KERNELS, help="int8 kernels to force (default: all)")
    parser.add_argument("--images", type=int, default=1000, help="easy-VQA test images (default: all 1,000)")
    parser.add_argument("--scenes", type=int, default=900, help="rendered scenes, a third of each count (default: 900)")
    parser.add_argument("--model", default="tiny", help="name or folder of the checkpoint (default: tiny)")
    parser.add_argument("--gallery", type=int, default=500, help="scenes to find each other's captions (default: 500)")
    parser.add_argument(
        "--retrieval-model",
        type=Path,
        default=RETRIEVAL_DIR,
        help="folder of the retrieval checkpoint (default: bundled)",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        material = write_material(Path(folder), options.images, options.scenes)
        variants = [Variant(dtype) for dtype in options.dtype]
        if "int8" in options.dtype:
            forced = [Variant("int8", name) for name in options.kernels]
            variants += [variant for variant in forced if runs(material, options.model, variant)]
        tallies = {str(variant): measure(material, options.model, variant) for variant in variants}
        features = {str(variant): embed(material, options.model, variant) for variant in variants}
    print(table(tallies))
    print()
    print(features_table(features))
    print()
    print(table({"fp32": measure_retrieval(options.retrieval_model, options.gallery)}))


def write_material(root: Path, images: int, scenes: int) -> Material:
    """Write images and manifest below `root`."""
    (root / "images").mkdir()
    easy_asked, easy_captioned = _write_easy_vqa(root, images)
    scene_asked, scene_captioned = write_scenes(root, scenes)
    asked = easy_asked + scene_asked
    lines = [json.dumps(asdict(row)) + "\n" for row in asked]
    (root / "questions.jsonl").write_text("".join(lines), encoding="utf-8")
    return Material(root, asked, easy_captioned + scene_captioned)


def runs(material: Material, model: str, variant: Variant) -> bool:
    """Whether a kernel runs here; if not, says so."""
    ran = _start(variant, "caption", material.root / "images", "--limit", "1", "--model", model, "--quiet")
    if ran.returncode:
        print(f"{variant} is left out: {ran.stderr.strip()}\n")
    return ran.returncode == 0


def measure(material: Material, model: str, variant: Variant) -> Outcomes:
    """Run the two commands in one variant, and compare their rows with the references."""
    answers = _run(material.root, "vqa", "questions.jsonl", model, variant)
    captions = _run(material.root, "caption", "images", model, variant)
    tally: Outcomes = defaultdict(list)
    for row in answers:
        tally[row["group"]].append(row["answer"] == row["reference"])
    if len(answers) != len(material.asked):
        raise SystemExit(f"asked {len(material.asked)} questions and got {len(answers)} answers")
    said = {Path(row["image"]).name: row["caption"] or "" for row in captions}
    for item in material.captioned:
        tally_caption(tally, item, said[item.image])
    return tally


def embed(material: Material, model: str, variant: Variant) -> Features:
    """The Q-Former features of all images."""
    rows = _run(material.root, "embed", "images", model, variant)
    return np.array([np.ravel(row["features"]) for row in rows], dtype=np.float32)


CLOSE = 0.999
"""A cosine of features from which on an image is counted as close to the first column's."""


def features_table(features: dict[str, Features]) -> str:
    """A Markdown table: the cosines of each image's features with those of the first column."""
    first, expected = next(iter(features.items()))
    cosines = [_cosines(given, expected) for given in features.values()]
    lines = [f"| cosine with {first} | " + " | ".join(features) + " |", "|---|" + "---:|" * len(features)]
    for name, figure in (("smallest", np.min), ("mean", np.mean)):
        lines.append(f"| {name} | " + " | ".join(f"{figure(values):.5f}" for values in cosines) + " |")
    shares = [np.mean(values >= CLOSE) for values in cosines]
    lines.append(f"| at least {CLOSE} | " + " | ".join(f"{share:.2%}" for share in shares) + " |")
    return "\n".join(lines)


def _cosines(given: Features, expected: Features) -> Features:
    """The cosine of each row of one with the same row of the other."""
    lengths = np.linalg.norm(given, axis=1) * np.linalg.norm(expected, axis=1)
    cosines: Features = (given * expected).sum(axis=1) / lengths
    return cosines


def measure_retrieval(folder: Path, number: int) -> Outcomes:
    """Recall and ITM's verdicts among `number` scenes that all show something else."""
    from transformers import AutoTokenizer, Blip2ForImageTextRetrieval

    from .retrieval_validation import gallery, retrieval_figures

    model = Blip2ForImageTextRetrieval.from_pretrained(folder, use_safetensors=True)
    return retrieval_figures(model, AutoTokenizer.from_pretrained(folder), gallery(ACCURACY_SEED, number))


def tally_caption(tally: Outcomes, item: Captioned, said: str) -> None:
    """Count a caption twice: are all shapes named, and is every word and the order right as well?"""
    tally[f"{item.group}: every shape with its colour"].append(named_shapes(said) == named_shapes(item.reference))
    tally[f"{item.group}: word for word, in order"].append(said == item.reference)
    if item.group.startswith(_SCENE_CAPTIONS.format("")):
        tally_caption(tally, replace(item, group=_ALL_SCENE_CAPTIONS), said)


def table(tallies: dict[str, Outcomes]) -> str:
    """A Markdown table: a row a figure, with its number of items, and a column a dtype."""
    names = sorted({name for tally in tallies.values() for name in tally})
    lines = ["| what | items | " + " | ".join(tallies) + " |", "|---|---:|" + "---:|" * len(tallies)]
    for name in names:
        items = [tally[name] for tally in tallies.values()]
        shares = " | ".join(f"{100 * sum(right) / len(right):.2f} %" for right in items)
        lines.append(f"| {name} | {len(items[0]):,} | {shares} |")
    return "\n".join(lines)


def _write_easy_vqa(root: Path, number: int) -> tuple[list[Asked], list[Captioned]]:
    asked, captioned = [], []
    for picture in pictures("test")[:number]:
        name = f"easy-{picture.number}.png"
        (root / "images" / name).write_bytes(picture.path.read_bytes())
        group = "easy-VQA test questions"
        asked += [Asked(f"images/{name}", asking.text, asking.answer, group) for asking in picture.questions]
        if picture.colour and picture.kind:
            reference = caption([(picture.colour, picture.kind)])
            captioned.append(Captioned(name, reference, "captions, easy-VQA test images"))
    return asked, captioned


def write_scenes(root: Path, number: int) -> tuple[list[Asked], list[Captioned]]:
    """Write held-out scenes below `root/images`; gives what is asked about them, and their captions."""
    asked, captioned = [], []
    rng = np.random.default_rng(ACCURACY_SEED)
    for index, scene in enumerate(islice(scene_stream(ACCURACY_SEED), number)):
        name, count = f"scene-{index:05}.png", len(scene.shapes)
        render(scene).save(root / "images" / name)
        captioned.append(Captioned(name, scene_caption(scene), _SCENE_CAPTIONS.format(count)))
        asked.append(Asked(f"images/{name}", HOW_MANY, str(count), f'scenes, "{HOW_MANY}"'))
        others = [asking for asking in scene_questions(scene, rng, _QUESTIONS_PER_SCENE) if asking.text != HOW_MANY]
        asked += [Asked(f"images/{name}", other.text, other.answer, "scenes, other questions") for other in others]
    return asked, captioned


def _run(root: Path, command: str, source: str, model: str, variant: Variant) -> list[dict[str, Any]]:
    """The rows that a command writes."""
    out = root / f"{command}-{variant}.jsonl"
    ran = _start(variant, command, root / source, "--model", model, "--quiet", "--out", out)
    if ran.returncode:
        raise SystemExit(f"blip2 {command} with {variant} failed: {ran.stderr}")
    return _rows(out.read_text(encoding="utf-8").splitlines())


def _start(variant: Variant, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `blip2` in a process of its own; a forced kernel needs the CPU."""
    options = ["--dtype", variant.dtype, *(["--device", "cpu"] if variant.kernel else [])]
    environment = os.environ | ({OVERRIDE: variant.kernel} if variant.kernel else {})
    command = [sys.executable, "-m", "blip2cli", *map(str, arguments), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _rows(lines: Iterable[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


if __name__ == "__main__":
    main()
