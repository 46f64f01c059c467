"""Chaos for --update: the input grows anywhere while its updates are killed; each row must be in the output once.

`python -m tests.chaos.growing --kills 60` kills so many updates, as many for each kind of output.
"""

import argparse
import json
import os
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from blip2cli.inputs import ColumnChoice, open_source
from tests.chaos.chaos import EXAMPLES, committed, kept, start, wait_for_commit

OUTPUTS: dict[str, tuple[str, ...]] = {
    "o.jsonl": (),
    "o.csv": (),
    "o.parquet": (),
    "shards": ("--shard-size", "7"),
    "o.jsonl.gz": (),
}
"""Output → the options that go with it."""

IMAGES = sorted(str(path) for path in EXAMPLES.rglob("*.png"))
ASKED = ("-p", "what shape is it?", "-p", "is there a circle?")
GROWN = 8
"""Rows that are added between updates, at any place."""


def grow(folder: Path, rows: list[dict], number: int, rng: random.Random) -> None:
    """Add rows to the manifest, some with an image that is not there, and some that are there already."""
    for _ in range(number):
        image = f"gone{len(rows)}.png" if rng.random() < 0.2 else f"./{'./' * len(rows)}{rng.choice(IMAGES)[1:]}"
        rows.insert(rng.randrange(len(rows) + 1), {"image": image, "id": len(rows)})
    if rng.random() < 0.5:
        rows.append(dict(rng.choice(rows)))
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def update(out: str, folder: Path, rng: random.Random) -> int:
    """Start an update; gives its process."""
    chance = ["--commit-every", rng.choice(["0", "0.02"]), "--batch-size", rng.choice(["1", "3"]), "--workers", "0"]
    words = ["vqa", "m.jsonl", "--image-root", "/", *ASKED, "--out", out, *OUTPUTS[out], "--model", "tiny"]
    return start([*words, "--dtype", "fp32", *chance, "--update"], folder)


def one(out: str, folder: Path, kills: int, rng: random.Random) -> int:
    """Kill so many updates of a growing input, then let one finish; gives its rows. Raises AssertionError."""
    folder.mkdir(parents=True)
    rows: list[dict] = []
    grow(folder, rows, 3 * GROWN, rng)
    for number in range(kills):
        before = committed(kept(folder, out)).rows
        child = update(out, folder, rng)
        if number % 2:
            wait_for_commit(kept(folder, out), before, child)
        else:
            time.sleep(rng.uniform(0.02, 1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert committed(kept(folder, out)).rows >= before, "what was committed stays so"
        grow(folder, rows, GROWN, rng)
    _, status = os.waitpid(update(out, folder, rng), 0)
    assert os.waitstatus_to_exitcode(status) in (0, 3), (folder / "log.txt").read_text()
    parts = open_source([str(folder / out)], ColumnChoice(image="image")).parts
    written = Counter(record["image"] for part in parts for record in part.records() if record)
    assert written == {name: 2 * count for name, count in Counter(row["image"] for row in rows).items()}, out
    return len(rows)


def run(kills: int, seed: int) -> dict[str, int]:
    """Kill updates of every kind of output. Raises AssertionError."""
    # once, for all that are forked
    from transformers import AutoTokenizer, Blip2ForConditionalGeneration  # noqa: F401

    import blip2cli.api
    import blip2cli.run.retry  # noqa: F401

    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        return {out: one(out, Path(temporary) / out, kills // len(OUTPUTS), rng) for out in OUTPUTS}


def main() -> None:
    """Report what was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    started = time.monotonic()
    for out, rows in run(given.kills, given.seed).items():
        print(f"{out}: {given.kills // len(OUTPUTS)} updates killed, {rows} rows, each there once")
    print(f"seed {given.seed}, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
