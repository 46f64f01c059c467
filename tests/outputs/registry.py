"""A command for every format of the registry, so that tests over formats need not be told of a new one."""

import json
from pathlib import Path

from blip2cli.outputs import FORMATS
from blip2cli.outputs.target import Target, target_of
from blip2cli.settings import OutputSettings

IMAGES = sorted(str(path) for path in (Path(__file__).parents[2] / "docs" / "examples").glob("*.png"))
ROWS = 6
IN_FOLDERS = ("parquet", "jsonl")
"""Formats of one file that are also tried as shards."""

CASES = [*FORMATS, *(f"{name}-shards" for name in IN_FOLDERS)]
OPTIONS = {"vqa": ("-p", "what shape is it?"), "embed": ("--pool", "mean")}
"""Task → the options that it needs."""


def write_manifest(rows: int = ROWS, note: object = "n", **more: object) -> None:
    """m.jsonl: rows with an id, a note and what else is given; the third has no image."""
    with open("m.jsonl", "w", encoding="utf-8") as file:
        for number in range(rows):
            image = "gone.png" if number == 2 else IMAGES[number % len(IMAGES)]
            record = {"image": image, "id": number, "question_id": number, "note": note, **more}
            file.write(json.dumps(record) + "\n")


def out_of(case: str) -> str:
    """What --out is called for a format: a file with its suffix, or a folder."""
    name, _, shards = case.partition("-")
    known = FORMATS[name]
    return "o" if shards or known.destination != "file" else f"o{known.suffixes[0] if known.suffixes else '.json'}"


def command(case: str, out: str | None = None) -> list[object]:
    """The command line that writes a format, in batches of one."""
    name = case.partition("-")[0]
    known = FORMATS[name]
    task = known.tasks[0] if known.tasks else "caption"
    words = [task, "m.jsonl", *OPTIONS.get(task, ()), "--format", name, "--out", out or out_of(case)]
    if name == "sidecar":
        words += ["--existing", "append"]
    return [*words, "--shard-size", 3, "--dtype", "fp32", "--workers", 0, "--batch-size", 1, "--quiet"]


def target(case: str) -> Target:
    return target_of(OutputSettings(out=Path(out_of(case)), format=case.partition("-")[0]), FORMATS)  # type: ignore[arg-type]  # a name of FORMATS
