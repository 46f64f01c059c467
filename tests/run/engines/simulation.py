"""A simulation of the cluster engine's driver: everything of a run but the models, at a hundred million rows.

`python -m tests.run.engines.simulation` runs `--engine ray` over manifests of growing length, a process each, on
a cluster of this machine. A manifest is one Parquet file of a million rows, named as often as it takes. The replicas
read the last row of each stretch, say what replicas say, and write nothing; all else is what a real run does: the
input is counted and cut, stretches are handed out, and each is put on record when it is done.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from blip2cli.run.engines import ray
from blip2cli.run.engines.ray_replica import Replica, ShardProgress
from blip2cli.settings import EngineSettings, GenerationSettings, InputSettings, Job, ModelSettings, OutputSettings
from blip2cli.tasks.caption import CaptionOptions

ROWS = (1_000_000, 10_000_000, 100_000_000)
FILE = 1_000_000
"""Rows of the one file that is there."""

GROUP = 10_000
"""Rows of its row groups."""


class NullReplica(Replica):
    """Reports what a replica reports that has done a stretch, in as many pieces."""

    def _shard(self, number: int) -> Iterator[ShardProgress]:
        first, stop = self.work.stretches.bounds(number)
        last = next(self.work.plan.source.stretch(stop - 1, stop)).name
        told = [(stop - first) * part // self.parts for part in range(self.parts + 1)]
        for before, after in itertools.pairwise(told[:-1]):
            yield ShardProgress(number, after - before)
        yield ShardProgress(number, told[-1] - told[-2], finished=True, rows=stop - first, last=last, batch_size=1)


@dataclass(frozen=True)
class Measured:
    """One run. Times in seconds from its start; memory is the driver's peak, in MiB."""

    rows: int
    shards: int
    first_batch: float
    seconds: float
    rows_a_second: float
    memory: float
    journal_bytes: int


def measure(manifest: Path, rows: int, shard_size: int, replicas: int) -> Measured:
    """Run over so many rows of a manifest, named as often as it takes, in this process."""
    job = Job(
        "caption",
        CaptionOptions(),
        InputSettings((str(manifest),) * -(-rows // FILE), limit=rows),
        OutputSettings(out=manifest.parent / f"out-{rows}", shard_size=shard_size, quiet=True),
        ModelSettings(model="tiny", device="cpu"),
        GenerationSettings(),
        EngineSettings("ray", "local", str(replicas), cpus_per_replica=1),
    )
    arrived: list[float] = []
    watched = _noting(ray._Ledger.enter, arrived)
    ray._Ledger.enter = watched  # type: ignore[method-assign]
    started = time.monotonic()
    ray.launch(job, NullReplica)
    ended = time.monotonic()
    journal = manifest.parent / f".out-{rows}.blip2"
    commits = journal.read_text().splitlines()
    shards = -(-rows // shard_size)
    assert len(commits) == shards + 2, "a line for the settings, one a shard, and one for the end"
    assert json.loads(commits[-1])["rows"] == rows
    return Measured(
        rows,
        shards,
        arrived[0] - started,
        ended - started,
        rows / (ended - arrived[0]),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        journal.stat().st_size,
    )


def _noting(enter: Callable[..., None], arrived: list[float]) -> Callable[..., None]:
    """The function, noting when it is called."""

    def noting(*given: object) -> None:
        arrived.append(time.monotonic())
        enter(*given)

    return noting


def write_manifest(path: Path) -> None:
    """A manifest of FILE rows: a path, as long as paths are, and a number."""
    numbers = range(FILE)
    names = [f"images/{number // 1000:04}/photograph-{number:07}.jpg" for number in numbers]
    pq.write_table(pa.table({"image": names, "id": pa.array(numbers)}), path, row_group_size=GROUP)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--shard-size", type=int, default=10_000)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(asdict(measure(options.one, options.rows[0], options.shard_size, options.replicas))))
        return
    print("| rows | shards | first batch, s | all, s | rows a second | driver's memory, MiB | journal, bytes a shard |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "manifest.parquet"
        write_manifest(manifest)
        for rows in options.rows:
            again = [sys.executable, "-m", "tests.run.engines.simulation", "--one", manifest, "--rows", rows]
            again += ["--shard-size", options.shard_size, "--replicas", options.replicas]
            done = subprocess.run(list(map(str, again)), stdout=subprocess.PIPE, text=True, check=True)
            told = Measured(**json.loads(done.stdout))
            print(
                f"| {told.rows:,} | {told.shards:,} | {told.first_batch:.1f} | {told.seconds:.1f} "
                f"| {told.rows_a_second:,.0f} | {told.memory:.0f} | {told.journal_bytes / told.shards:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
