"""What the parent of `--devices` can feed and write: a run whose replicas do nothing but answer.

`python -m tests.run.engines.feeding` captions a Parquet manifest of paths, with every replica a process that pulls
rows and returns a caption that it has ready; all else is what a real run does. The rows a second are those between
the first results and the last; what a run takes of memory is the parent's peak, after each of two lengths of input.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blip2cli.host.terminal import Progress
from blip2cli.images.ready import ReadyProcesses
from blip2cli.records import Row
from blip2cli.run import flow
from blip2cli.run.engines import replica_process, replicas
from blip2cli.run.engines.replica import DONE, DRY, PULL, READY, SEND_ROWS
from blip2cli.run.pipeline import PipelineStats
from blip2cli.run.plan import make_plan
from blip2cli.settings import EngineSettings, GenerationSettings, InputSettings, Job, ModelSettings, OutputSettings
from blip2cli.tasks.caption import CaptionOptions

ROWS = (100_000, 400_000)

AHEAD = 512
"""Rows that a replica has in hand, as it decodes images ahead."""

SLOW, SLOW_SECONDS = "BLIP2_SLOW_REPLICA", 1.0
"""Environment variable that names a slow replica; the seconds that it takes for each 64 rows."""

CAPTION = "a red circle, a blue rectangle and a green triangle on a table"


@dataclass(frozen=True)
class Measured:
    """One run. Rows a second from the first results on; seconds of the parent's processor time; its peak in MiB."""

    suffix: str
    slow: bool
    rows: int
    rows_a_second: float
    parent_cpu: float
    memory: float


def answer(connection: Any, setup: Any) -> None:
    """The main function of a replica that does nothing: a caption for each row that it pulls."""
    try:
        _answer(connection)
    except (EOFError, OSError):
        os._exit(0)  # the run is over


def _answer(connection: Any) -> None:
    seconds = SLOW_SECONDS if os.environ.get(SLOW) == multiprocessing.current_process().name else 0.0
    outputs = (((CAPTION,), None, False, False),)
    in_hand: deque[Row] = deque()
    connection.send((READY,))
    while True:
        connection.send((PULL,))
        _, rows = connection.recv()
        in_hand += rows
        while len(in_hand) > AHEAD or (in_hand and not rows):
            time.sleep(seconds)
            finished = [in_hand.popleft() for _ in range(min(SEND_ROWS, len(in_hand)))]
            connection.send((DONE, [(row.index, outputs) for row in finished]))
        if not rows:
            connection.send((DRY, PipelineStats({}, 1, 1)))


def measure(folder: Path, suffix: str, rows: int, count: int, slow: bool) -> Measured:
    """Run over so many rows in this process."""
    manifest, out = folder / f"{rows}.parquet", folder / f"out-{rows}{suffix}"
    job = Job(
        "caption",
        CaptionOptions(),
        InputSettings((str(manifest),)),
        OutputSettings(out=out, overwrite=True),
        ModelSettings(model="tiny", devices=f"cpu:{count}"),
        GenerationSettings(),
        EngineSettings(),
    )
    if slow:
        os.environ[SLOW] = "cpu:0"
    replica_process.serve_rows = answer  # type: ignore[assignment]
    started = []
    results_of = replicas.Replicas._results_of

    def noted(self: Any, index: int) -> Any:
        if not started:
            started.append((time.monotonic(), time.process_time()))
        return results_of(self, index)

    replicas.Replicas._results_of = noted  # type: ignore[method-assign]
    with closing(Progress(quiet=True)) as progress:
        tally = flow.run(make_plan(job), progress, ReadyProcesses())
    assert tally.rows == rows and tally.errors == 0
    seconds, cpu = time.monotonic() - started[0][0], time.process_time() - started[0][1]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Measured(suffix, slow, rows, round(rows / seconds, 1), round(cpu, 2), round(memory, 1))


def write_manifest(path: Path, rows: int) -> None:
    names = pa.array([f"photos/2024/album-{at // 1000:05}/image-{at:09}.jpg" for at in range(rows)])
    shot = pa.array([f"2024-05-{at % 28 + 1:02}" for at in range(rows)])
    table = pa.table({"path": names, "id": pa.array(range(rows)), "taken": shot})
    pq.write_table(table, path, row_group_size=10_000)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the parent of --devices can feed and write.")
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS)
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--suffix", nargs="*", default=[".parquet", ".jsonl"])
    parser.add_argument("--slow", action="store_true", help="let one replica take a second for 64 rows")
    parser.add_argument("--only", type=Path, metavar="FOLDER", help="measure one run, over a manifest in a folder")
    given = parser.parse_args()
    if given.only:
        measured = measure(given.only, given.suffix[0], given.rows[0], given.replicas, given.slow)
        print(json.dumps(asdict(measured)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for rows in given.rows:
            write_manifest(Path(folder, f"{rows}.parquet"), rows)
            for suffix in given.suffix:
                words = ["--only", folder, "--suffix", suffix, "--rows", rows, "--replicas", given.replicas]
                words += ["--slow"] if given.slow else []
                # a process each, whose peak of memory is the run's
                subprocess.run([sys.executable, "-m", "tests.run.engines.feeding", *map(str, words)], check=True)


if __name__ == "__main__":
    main()
