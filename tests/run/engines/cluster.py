"""A Ray cluster of several nodes on this machine, in a process of its own, and what is done with it in tests.

`python -m tests.run.engines.cluster 2` makes a head and a node of two cores, prints the cluster's address,
then does what the lines on stdin say: `add N` adds a node of N cores; `kill` kills the node added last, without a
warning. It ends with its stdin.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from blip2cli.outputs.journal import hidden_beside, read_journal

BLIP2 = [sys.executable, "-m", "blip2cli"]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
PATIENCE = 120.0
"""Seconds that anything may take."""

HEAD = {
    "num_cpus": 0,
    "include_dashboard": False,
    "object_store_memory": 100 << 20,
    "_system_config": {"health_check_period_ms": 500},  # six times as often as usual: a dead node is noticed sooner
}


class Cluster:
    """A cluster in a process of its own, told what to do line by line."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.address = self._answer()

    def tell(self, what: str) -> None:
        print(what, file=self.process.stdin, flush=True)
        assert self._answer() == "done"

    def _answer(self) -> str:
        assert self.process.stdout is not None
        answer = self.process.stdout.readline().strip()
        assert answer, "the cluster did not start"
        return answer

    def replicas(self) -> list[int]:
        """The actors' processes; those of other clusters on this machine are not among them."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                is_one = b"MapWorker" in (process / "cmdline").read_bytes()
                if is_one and _parent(_parent(process.name)) == str(self.process.pid):  # between them is Ray's raylet
                    found.append(int(process.name))
            except OSError:
                continue  # it has just gone
        return found

    def command(self, *arguments: object) -> list[str]:
        return [
            *BLIP2, *map(str, arguments), "--model", "tiny", "--engine", "ray", "--ray-address", self.address,
            "--cpus-per-replica", "1", "--workers", "0",
        ]  # fmt: skip

    def start(self, *arguments: object) -> "subprocess.Popen[str]":
        pipe = subprocess.PIPE
        return subprocess.Popen(self.command(*arguments), stdout=pipe, stderr=pipe, text=True, env=ENV)

    def run(self, *arguments: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, env=ENV, timeout=PATIENCE)


@contextmanager
def started(*cores: int) -> Iterator[Cluster]:
    """Ray's head, and nodes of so many cores; more can be added."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.run.engines.cluster", *map(str, cores)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=ENV) as process:
        yield Cluster(process)


def ended(run: "subprocess.Popen[str]") -> str:
    """Wait for the end of a run; what it said, all of it on stderr."""
    with run:
        rows, told = run.communicate(timeout=PATIENCE)
    assert not rows
    return told


def files(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir()) if out.exists() else []


def committed(out: Path) -> list[int]:
    """The numbers of the shards that the journal has."""
    record = read_journal(hidden_beside(out))
    done = record.commit.state.get("done", []) if record else []
    return [number for first, last in done for number in range(first, last + 1)]


def same(out: Path, expected: Path, first: int | None = None) -> bool:
    """Whether a folder holds the files of another, or the first of them, byte for byte."""
    return files(out) == files(expected)[:first] and all(
        (out / name).read_bytes() == (expected / name).read_bytes() for name in files(out)
    )


def wait_for(happened: Callable[[], bool], run: "subprocess.Popen[str] | None" = None) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, "it took too long"
        assert run is None or run.poll() is None, f"the run ended too early: {run.communicate()[1]}"
        time.sleep(0.02)


def _parent(process: str) -> str:
    return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[1]


def main() -> None:
    from ray import cluster_utils

    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=HEAD)
    nodes = [cluster.add_node(num_cpus=int(cores), object_store_memory=100 << 20) for cores in sys.argv[1:]]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        what, *number = line.split()
        if what == "add":
            nodes.append(cluster.add_node(num_cpus=int(number[0]), object_store_memory=100 << 20))
        else:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        print("done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
