"""A soak: an hour of runs that are crashed, stopped, killed and resumed; nothing may grow, and no row get lost.

`python -m tests.hostile.soak --minutes 60` takes two cores for that time. For one half of it a single run goes over a
manifest without end, while its workers are crashed and stopped. In the other half short runs over folders, archives and
manifests are crashed, stopped, interrupted and killed, resumed, and compared with what they read. It prints one table,
and fails where memory, descriptors or processes grow, or a row is lost, doubled or out of order.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from tests.hostile.score import Score, check_rows, count_errors, growth, table
from tests.hostile.watched import alive, descendants, has_started, memory_of, sample

WORKERS = 2
SAMPLE_EVERY = 0.5
HARM_EVERY = 6.0
"""Mean seconds between two blows at a worker of the long run."""

BLOWS_AT_STARTS = 2
"""Blows in a run at workers that are still starting: one that fails to start three times in a row is given up."""

ROWS_A_SECOND = 500
"""More than the long run does, so that its manifest does not end before its time."""


ENDS = {0, 3, 130, -signal.SIGKILL}
"""Exit codes of a run: all good, some errors, interrupted or terminated, killed by us."""


def make_images(folder: Path, rng: random.Random) -> list[Path]:
    """Good images of several kinds and sizes, and bad ones."""
    pixels = np.random.default_rng(rng.randrange(1 << 30))
    folder.mkdir()
    for number, suffix in enumerate(("jpg", "png", "webp", "gif", "tif", "bmp") * 4):
        size = (rng.randrange(20, 900), rng.randrange(20, 900), 3)
        Image.fromarray(pixels.integers(0, 256, size, dtype=np.uint8)).save(folder / f"{number:02}.{suffix}")
    whole = (folder / "00.jpg").read_bytes()
    (folder / "90 cut.jpg").write_bytes(whole[: len(whole) // 3])
    (folder / "91 empty.png").write_bytes(b"")
    (folder / "92 text.png").write_bytes(b"this is no image")
    return sorted(folder.iterdir())


def blip2(folder: Path, *words: object) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "BLIP2_MODEL": "tiny", "OMP_NUM_THREADS": "1"}
    with open(folder / "log.txt", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "blip2cli", *map(str, words)], cwd=folder, env=environment, stdout=log, stderr=log
        )


def hurt_a_worker(pid: int, rng: random.Random, score: Score, kinds: tuple[str, ...]) -> None:
    if workers := descendants(pid):
        kind, worker = rng.choice(kinds), rng.choice(workers)
        starting = not has_started(worker)
        if starting and score.blows_at_starts == BLOWS_AT_STARTS:
            return
        try:
            os.kill(worker, getattr(signal, kind))
        except ProcessLookupError:
            return
        score.blows[f"worker {kind}"] += 1
        score.blows_at_starts += starting


def long_run(work: Path, images: list[Path], seconds: float, rng: random.Random, score: Score) -> None:
    """One run, as long as is asked for; it is interrupted at the end."""
    work.mkdir()
    with open(work / "m.jsonl", "w") as file:
        for number in range(int(seconds * ROWS_A_SECOND)):
            file.write(json.dumps({"image": str(images[number % len(images)]), "id": number}) + "\n")
    words = ("caption", "m.jsonl", "--out", "o.jsonl", "--workers", WORKERS, "--batch-size", 16, "--image-timeout", 2)
    run = blip2(work, *words, "--quiet")
    started = time.monotonic()
    next_blow = started + 10
    while run.poll() is None and time.monotonic() - started < seconds:
        time.sleep(SAMPLE_EVERY)
        rows = count_lines(work / "o.jsonl", score.samples[-1].rows if score.samples else 0, score)
        score.samples.append(sample(run.pid, time.monotonic() - started, rows))
        if time.monotonic() > next_blow:
            next_blow = time.monotonic() + rng.uniform(0.5, 1.5) * HARM_EVERY
            hurt_a_worker(run.pid, rng, score, ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGSTOP"))
    finish(run, work, score)
    score.runs += 1
    with open(work / "o.jsonl") as file:
        rows_written = [json.loads(line) for line in file]
    check_rows([row["id"] for row in rows_written], list(range(len(rows_written))), "the long run", score)
    count_errors((row["error"] for row in rows_written), score)
    if len(rows_written) < 20 * seconds:
        score.faults.append(f"the long run did {len(rows_written)} rows only")


_position: dict[Path, int] = {}


def count_lines(path: Path, before: int, score: Score) -> int:
    """Lines of a file that grows."""
    try:
        with open(path, "rb") as file:
            file.seek(_position.get(path, 0))
            new = file.read()
    except FileNotFoundError:
        return before
    _position[path] = _position.get(path, 0) + len(new)
    return before + new.count(b"\n")


def finish(run: "subprocess.Popen[bytes]", work: Path, score: Score) -> None:
    """Interrupt a run, and see that nothing of it is left."""
    below = descendants(run.pid)
    run.send_signal(signal.SIGINT)
    wait_for_end(run, below, work, score, 60)


def wait_for_end(
    run: "subprocess.Popen[bytes]", below: list[int], work: Path, score: Score, seconds: float
) -> int | None:
    try:
        run.wait(seconds)
    except subprocess.TimeoutExpired:
        score.faults.append(f"a run did not end: {work}")
        run.kill()
        run.wait()
    deadline = time.monotonic() + 5
    while any(map(alive, below)) and time.monotonic() < deadline:
        time.sleep(0.05)
    score.left_over += sum(map(alive, below))
    if run.returncode not in ENDS:
        told = (work / "log.txt").read_text(errors="replace")[-300:]
        score.faults.append(f"exit code {run.returncode}: {told}")
    return run.returncode


INPUTS = ("folder", "tar", "manifest")
OUTPUTS = ("o.jsonl", "o.parquet", "o.csv", "shards")


def short_run(work: Path, images: list[Path], rng: random.Random, score: Score, until: float) -> None:
    """One run over a new input, hurt and resumed until it is finished, and compared with what it read."""
    work.mkdir()
    source, names = make_input(work, images, rng)
    out = rng.choice(OUTPUTS)
    words: list[object] = [rng.choice(["caption", "vqa"]), source, "--out", out, "--workers", rng.choice([1, 2])]
    words += ["-p", "what shape is it?"] if words[0] == "vqa" else []
    words += ["--shard-size", 50] if out == "shards" else []
    words += ["--batch-size", rng.choice([4, 16]), "--commit-every", rng.choice([0, 0.2]), "--image-timeout", 2]
    resume: list[object] = []
    peak = 0
    while True:
        run = blip2(work, *words, *resume)
        score.blows_at_starts = 0
        score.runs += 1
        started = time.monotonic()
        ends_at = started + rng.uniform(3, 12) if rng.random() < 0.6 else started + 300
        next_blow = started + rng.uniform(3, 8)
        below: list[int] = []
        while run.poll() is None and time.monotonic() < ends_at:
            time.sleep(0.1)
            below = descendants(run.pid) or below
            peak = max(peak, memory_of(run.pid))
            if time.monotonic() > next_blow:
                next_blow = time.monotonic() + rng.uniform(0.5, 4)
                hurt_a_worker(run.pid, rng, score, ("SIGSEGV", "SIGKILL", "SIGSTOP"))
        if run.poll() is None:
            end = rng.choice([signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
            score.blows[f"run {end.name}"] += 1
            run.send_signal(end)
        code = wait_for_end(run, below, work, score, 120)
        if code in (0, 3) or code not in ENDS:
            break
        score.resumed += 1
        resume = ["--resume"]
    score.peaks.append(peak)
    if code not in ENDS:
        return
    rows = list(rows_of(work / out))
    check_rows([name for name, _ in rows], names, f"{source} to {out}", score)
    count_errors((error for _, error in rows), score)


def make_input(work: Path, images: list[Path], rng: random.Random) -> tuple[str, list[str]]:
    """An input, and the names of its rows in their order."""
    kind = rng.choice(INPUTS)
    count = rng.randrange(60, 400)
    chosen = [rng.choice(images) for _ in range(count)]
    if kind == "manifest":
        names = [str(image) if rng.random() < 0.95 else f"gone{number}.png" for number, image in enumerate(chosen)]
        (work / "m.jsonl").write_text("".join(json.dumps({"image": name}) + "\n" for name in names))
        return "m.jsonl", names
    files = [f"{number:04} {image.name}" for number, image in enumerate(chosen)]
    if kind == "folder":
        (work / "folder").mkdir()
        for name, image in zip(files, chosen, strict=True):
            os.link(image, work / "folder" / name)
        return "folder", [f"folder/{name}" for name in sorted(files)]
    with tarfile.open(work / "a.tar", "w") as archive:
        for name, image in zip(files, chosen, strict=True):
            member, data = tarfile.TarInfo(name), image.read_bytes()
            member.size = len(data)
            archive.addfile(member, BytesIO(data))
    return "a.tar", [f"a.tar/{name}" for name in files]


def rows_of(out: Path) -> Iterator[tuple[str, str | None]]:
    """Names and errors of an output."""
    if out.is_dir():
        for path in sorted(out.glob("*.parquet")):
            yield from rows_of(path)
    elif out.suffix == ".parquet":
        for row in pq.read_table(out, columns=["image", "error"]).to_pylist():
            yield row["image"], row["error"]
    elif out.suffix == ".csv":
        with open(out, newline="") as file:
            for row in csv.DictReader(file):
                yield row["image"], row["error"] or None
    else:
        for line in out.read_text().splitlines():
            yield json.loads(line)["image"], json.loads(line)["error"]


def soak(minutes: float, seed: int, work: Path) -> Score:
    """Half of the time for each part."""
    rng, score = random.Random(seed), Score()
    images = make_images(work / "images", rng)
    long_run(work / "long", images, minutes * 30, rng, score)
    until = time.monotonic() + minutes * 30
    number = 0
    while time.monotonic() < until:
        folder = work / f"short{number}"
        faults = len(score.faults)
        short_run(folder, images, rng, score, until)
        if len(score.faults) == faults:
            shutil.rmtree(folder)
        number += 1
    score.faults += growth(score)
    if score.left_over:
        score.faults.append(f"{score.left_over} processes were left over")
    return score


def main() -> None:
    """Print the table; exit code 1 where there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder that does not exist yet, which is kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = given.keep or Path(temporary) / "soak"
        work.mkdir(parents=True)
        score = soak(given.minutes, given.seed, work)
    print(table(score, given.minutes, given.seed))
    sys.exit(1 if score.faults else 0)


if __name__ == "__main__":
    main()
