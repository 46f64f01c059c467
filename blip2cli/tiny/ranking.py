"""Measure ranking with the bundled models as a user runs it: `python -m blip2cli.tiny.ranking`.

Writes held-out scenes to a temporary folder, runs `blip2 caption` on them, and prints a
Markdown table of the captions that were right, in per cent: of greedy decoding, of one
sample, of the best of several samples by ITM and by ITC, and of a choice that always
finds a right one among them. A caption is right if it names every shape with its colour,
in order, and nothing else.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .accuracy import Captioned, write_scenes

Row = dict[str, Any]


def main() -> None:
    """Parse the options, measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m blip2cli.tiny.ranking", description=__doc__)
    parser.add_argument("--scenes", type=int, default=900, help="rendered scenes, a third of each count (default: 900)")
    parser.add_argument("--samples", type=int, default=8, help="captions for each image (default: 8)")
    parser.add_argument(
        "--temperature", type=float, nargs="+", default=[1.0, 1.5, 2.0], help="temperatures (default: 1 1.5 2)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "images").mkdir()
        captioned = write_scenes(Path(folder), options.scenes)[1]
        greedy = _caption(Path(folder))
        measured = {
            temperature: figures(captioned, greedy, _ranked(Path(folder), options.samples, temperature))
            for temperature in options.temperature
        }
    print(table(measured, options.scenes))


def figures(captioned: list[Captioned], greedy: list[Row], runs: dict[str, list[Row]]) -> dict[str, float]:
    """The share of right captions of each way to choose one; `runs` has the rows of each run."""
    samples = [row["captions"] for row in runs["samples"]]
    chosen: dict[str, list[list[str]]] = {
        "greedy": [[row["caption"]] for row in greedy],
        "one sample": samples,
        "best by ITM": [[row["caption"]] for row in runs["itm"]],
        "best by ITC": [[row["caption"]] for row in runs["itc"]],
    }
    references = [item.reference for item in captioned]
    shares = {name: _share(captions, references) for name, captions in chosen.items()}
    found = [reference in captions for captions, reference in zip(samples, references, strict=True)]
    return {**shares, "any of them": sum(found) / len(found)}


def table(measured: dict[float, dict[str, float]], scenes: int) -> str:
    """A Markdown table: a row for each temperature, a column for each way to choose."""
    names = list(next(iter(measured.values())))
    lines = [f"| temperature ({scenes:,} scenes) | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for temperature, shares in measured.items():
        cells = " | ".join(f"{100 * shares[name]:.1f} %" for name in names)
        lines.append(f"| {temperature:g} | {cells} |")
    return "\n".join(lines)


def _share(captions: list[list[str]], references: list[str]) -> float:
    """The share of right captions, of one image with the same weight as of another."""
    shares = [
        sum(text == reference for text in texts) / len(texts)
        for texts, reference in zip(captions, references, strict=True)
    ]
    return sum(shares) / len(shares)


def _ranked(root: Path, samples: int, temperature: float) -> dict[str, list[Row]]:
    """The samples as they come, and the best of them by each score."""
    sampled = ("--num-captions", samples, "--temperature", temperature)
    ranked = {name: _caption(root, *sampled, "--rank-by", name, "--keep", 1) for name in ("itm", "itc")}
    return {"samples": _caption(root, *sampled), **ranked}


def _caption(root: Path, *options: object) -> list[Row]:
    """The rows of `blip2 caption`, run in a process of its own."""
    words = ("caption", root / "images", "--model", "tiny", "--dtype", "fp32", "--quiet", *options)
    command = [sys.executable, "-m", "blip2cli", *map(str, words)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {ran.stderr}")
    return [json.loads(line) for line in ran.stdout.splitlines()]


if __name__ == "__main__":
    main()
