"""Chaos: runs killed at random moments and resumed, until they are finished; their output must be that of one run.

`python -m tests.chaos.chaos --rounds 200` starts and kills that many processes. Each is forked from this one, which has
imported what takes seconds, and dies of SIGKILL after a random time, or a random moment behind a commit. Between the
rounds the input gets other columns or types, or somebody edits the output: going on is refused then, and nothing may
change. What is finished is deleted once, and the same command starts again.
"""

import argparse
import gzip
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blip2cli.errors import UsageError
from blip2cli.outputs.commits import Commit
from blip2cli.outputs.journal import read_journal
from tests.docs.warm import run_once

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
QUESTIONS = ("what shape is it?", "what colour is it?", "is there a circle?")
OUTPUTS: dict[str, tuple[str, ...]] = {
    "o.jsonl": (),
    "o.parquet": (),
    "shards": ("--shard-size", "100"),
    "lines": ("--shard-size", "64", "--format", "jsonl"),
    "o.jsonl.gz": (),
    "o.csv": (),
    "o.arrow": (),
    "r.json": ("--format", "vqa"),
    "w": ("--shard-size", "60", "--format", "webdataset"),
    "f": ("--shard-size", "60", "--format", "npy", "--pool", "mean"),
    "c.json": ("--format", "coco"),
    "i": ("--format", "imagefolder"),
    "s": ("--format", "sidecar", "--existing", "append"),
    "link.jsonl": (),
}
"""Output → the options that go with it. The last is a symbolic link to a file in another folder."""

TASKS = {"w": "caption", "f": "embed", "c.json": "caption", "i": "caption", "s": "caption"}
"""Output → its task, where it is not vqa."""

INDEX = "metadata.jsonl"


@dataclass
class Tally:
    """What was done to one kind of output. `refused` counts what a changed input or output made impossible.

    Every other kill waits for a commit; `number` makes half of the outputs begin with such a one.
    """

    number: int = 0
    kills: int = 0
    kills_before_a_commit: int = 0
    finished: int = 0
    refused: int = 0
    resumes: list[int] = field(default_factory=list)


def write_manifest(path: Path, rows: int, **more: Any) -> None:
    """Rows of every kind: good ones, and every seventh with an image that is not there. `more` is put into each."""
    images = sorted(str(path) for path in EXAMPLES.rglob("*.png"))
    with open(path, "w", encoding="utf-8") as file:
        for number in range(rows):
            image = f"gone{number}.png" if number % 7 == 3 else images[number % len(images)]
            record = {"image": image, "id": number, "question_id": number, "note": "né" * (number % 5), **more}
            file.write(json.dumps(record) + "\n")


def prepare(folder: Path, out: str, rows: int) -> None:
    """Make the folder that a run works in."""
    folder.mkdir(parents=True)
    write_manifest(folder / "m.jsonl", rows)
    if out.startswith("link"):
        (folder / "real").mkdir()
        (folder / out).symlink_to(f"real/{out}")


def kept(folder: Path, out: str) -> Path:
    """The hidden file of an output."""
    if out.startswith("link"):
        return folder / "real" / f".{out}.blip2"
    return folder / (f".{out}.{INDEX}.blip2" if out == "i" else f".{out}.blip2")


def command(out: str, rng: random.Random) -> list[str]:
    """A command line that writes the output; how it batches and commits is left to chance."""
    asked = [word for question in QUESTIONS for word in ("-p", question)]
    task = TASKS.get(out, "vqa")
    sizes = ["1"] if task == "embed" else ["3", "8", "32"]  # features' last bits may depend on it, texts do not
    chance = ["--commit-every", rng.choice(["0", "0.02", "0.2"]), "--batch-size", rng.choice(sizes)]
    chance += ["--workers", rng.choice(["0", "0", "1", "2"])]
    asked = asked if task == "vqa" else []
    return [task, "m.jsonl", *asked, "--out", out, *OUTPUTS[out], "--model", "tiny", "--dtype", "fp32", *chance]


def start(arguments: list[str], folder: Path) -> int:
    """Run `blip2` in a process of its own; gives its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.chdir(folder)
        with open("log.txt", "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        from blip2cli.cli import main

        sys.argv = ["blip2", *arguments]
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        os._exit(status)


def contents(out: Path) -> Any:
    """The bytes of text, arrays and tars; schema, metadata and rows of tables; those of every file of a folder."""
    if out.is_dir():
        return {path.name: contents(path) for path in sorted(out.iterdir())}
    if out.suffix == ".gz":
        return gzip.decompress(out.read_bytes())
    if out.suffix not in (".parquet", ".arrow"):
        return out.read_bytes()
    table = pq.read_table(out) if out.suffix == ".parquet" else pa.ipc.open_file(out).read_all()
    return table.schema, table.schema.metadata, table.to_pylist()


def committed(journal: Path) -> Commit:
    """What the journal says is done."""
    try:
        record = read_journal(journal)
    except UsageError:  # the first line is being written
        return Commit()
    return record.commit if record else Commit()


def wait_for_commit(journal: Path, before: int, child: int) -> None:
    """Wait until more is committed than before, or the child has ended."""
    while (
        committed(journal).rows <= before and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    ):
        time.sleep(0.001)


def until_finished(out: str, folder: Path, kills: int, longest: float, rng: random.Random, tally: Tally) -> None:
    """Start, kill within `longest` seconds, and resume, until finished; behind so many kills let it finish."""
    resumes = 0
    changes = rng.sample(CHANGES, len(CHANGES)) if kills else []
    while True:
        before = committed(kept(folder, out)).rows
        child = start([*command(out, rng), "--resume"], folder)
        if tally.kills < kills:
            if (tally.number + tally.kills) % 2:
                wait_for_commit(kept(folder, out), before, child)
                time.sleep(rng.uniform(0, longest / 20))
            else:
                time.sleep(rng.uniform(0.02, longest))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 3, (folder / "log.txt").read_text()
            tally.finished += 1
            tally.resumes.append(resumes)
            return
        resumes += 1
        tally.kills += 1
        now = committed(kept(folder, out)).rows
        tally.kills_before_a_commit += now == before
        assert now >= before, "what was committed stays so"
        if out.endswith(".parquet") and (folder / out).exists():
            pq.read_table(folder / out)  # nothing half-written stands under the name
        if now and changes:
            tally.refused += changes.pop()(out, folder, rng)


def refused(out: str, folder: Path, rng: random.Random) -> bool:
    """See that going on is refused, and changes nothing."""
    before = snapshot(folder)
    _, status = os.waitpid(start([*command(out, rng), "--resume"], folder), 0)
    assert os.waitstatus_to_exitcode(status) == 2, (folder / "log.txt").read_text()
    assert snapshot(folder) == before, f"{out} was touched, though it was refused"
    return True


def snapshot(folder: Path) -> dict[str, bytes]:
    """All files, but for what runs say."""
    return {
        str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "log.txt"
    }


def other_columns(out: str, folder: Path, rng: random.Random) -> bool:
    """Go on with a column more."""
    return with_manifest(out, folder, rng, mood="new")


def other_types(out: str, folder: Path, rng: random.Random) -> bool:
    """Go on with numbers in place of words; where all was done, only the names of columns are compared."""
    if committed(kept(folder, out)).finished:
        return False
    return with_manifest(out, folder, rng, note=7)


def with_manifest(out: str, folder: Path, rng: random.Random, **more: Any) -> bool:
    manifest = folder / "m.jsonl"
    good = manifest.read_bytes()
    write_manifest(manifest, good.count(b"\n"), **more)
    result = refused(out, folder, rng)
    manifest.write_bytes(good)
    return result


def edited(out: str, folder: Path, rng: random.Random) -> bool:
    """Go on behind somebody who changed a byte of what is committed, or put a file of theirs in its place."""
    place = folder / out
    if out == "s":
        return False  # texts are for anyone to edit
    if place.is_dir():
        shards = sorted(path for path in place.rglob("*") if path.is_file() and path.parent.name != "images")
        place = place / INDEX if out == "i" else shards[0] if shards else place / "part-00099.jsonl"
        if out in ("shards", "w", "f") and not shards:
            return False
    size = committed(kept(folder, out)).state.get("size", 0)
    good = place.read_bytes() if place.exists() else None
    data = bytearray(good or b"mine")
    data[rng.randrange(size or len(data))] ^= 1
    place.write_bytes(bytes(data))
    result = refused(out, folder, rng)
    place.unlink() if good is None else place.write_bytes(good)
    return result


CHANGES: list[Callable[[str, Path, random.Random], bool]] = [other_columns, other_types, edited]
"""What happens between the rounds, each once to an output."""


def start_again(out: str, folder: Path, rng: random.Random) -> None:
    """Delete what is finished, and start the same command again."""
    place = Path(os.path.realpath(folder / out))
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    _, status = os.waitpid(start(command(out, rng), folder), 0)
    assert os.waitstatus_to_exitcode(status) == 3, (folder / "log.txt").read_text()


def run(rounds: int, rows: int, seed: int) -> dict[str, Tally]:
    """Kill `rounds` processes, as many for each kind of output. Raises AssertionError."""
    import blip2cli.run.retry  # noqa: F401

    run_once()
    rng = random.Random(seed)
    tallies = {out: Tally(number) for number, out in enumerate(OUTPUTS)}
    with tempfile.TemporaryDirectory() as temporary:
        for out, tally in tallies.items():
            one(out, Path(temporary) / out, rounds // len(OUTPUTS), rows, rng, tally)
    return tallies


def one(out: str, work: Path, kills: int, rows: int, rng: random.Random, tally: Tally) -> None:
    """One kind of output: an undisturbed run, then killed ones to compare with it."""
    whole, folder = work / "whole", work / "killed"
    prepare(whole, out, rows)
    started = time.monotonic()
    until_finished(out, whole, 0, 0, rng, Tally())
    longest = 1.2 * (time.monotonic() - started)
    expected = contents(whole / out)
    while tally.kills < kills:
        prepare(folder, out, rows)
        until_finished(out, folder, kills, longest, rng, tally)
        assert contents(folder / out) == expected, f"{out} differs from a run that was not killed"
        left = {path.name for path in folder.iterdir()} - {"m.jsonl", "log.txt", out, kept(folder, out).name, "real"}
        assert left <= {f".{out}.tmp.blip2", f"{out}.errors.jsonl"}, left
        shutil.rmtree(folder)
    start_again(out, whole, rng)
    assert contents(whole / out) == expected, f"{out} differs, begun again where it was deleted"


def main() -> None:
    """Report what was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--rows", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    started = time.monotonic()
    tallies = run(given.rounds, given.rows, given.seed)
    print("| output | killed | of these before a new commit | finished, and equal | most resumes of one | refused |")
    print("|---|---:|---:|---:|---:|---:|")
    for out, tally in tallies.items():
        most = max(tally.resumes, default=0)
        print(
            f"| {out} | {tally.kills} | {tally.kills_before_a_commit} | {tally.finished} | {most} | {tally.refused} |"
        )
    print(f"\n{given.rows} rows, seed {given.seed}, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
