"""Replicas that are slow, or die with rows that another has too: in this process, with messages in a fixed order."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from blip2cli.host.signals import Stop
from blip2cli.records import Result, Row
from blip2cli.run.engines import replica_process
from blip2cli.run.engines import replicas as module
from blip2cli.run.engines.replica import DONE, DRY, PULL, READY, ROWS
from blip2cli.run.engines.replica_process import GONE, ReplicaProcess
from blip2cli.run.engines.replicas import Replicas
from blip2cli.settings import ModelSettings
from tests.run.engines import feeding

HELD, ROWS_OF_ALL = 100, 1000

PATIENCE = 20.0
"""Seconds after which the slow replica answers, so that a test that fails ends."""


@dataclass(frozen=True)
class Nothing:
    """All that is asked of a checkpoint."""

    device: torch.device

    def on(self, device: torch.device) -> "Nothing":
        return Nothing(device)


class Fast:
    """The pipe to a replica that answers each row at once, with its own name."""

    def __init__(self, replica: ReplicaProcess, inbox: Any) -> None:
        self.replica, self.inbox, self.got = replica, inbox, list[int]()
        self.hear(READY)
        self.hear(PULL)

    def hear(self, *message: Any) -> None:
        self.inbox.put((self.replica, self.replica.process, message))

    def send(self, message: tuple[str, list[Row]]) -> None:
        assert message[0] == ROWS
        self.got += [row.index for row in message[1]]
        self.answer([row.index for row in message[1]])
        self.hear(PULL)

    def answer(self, indices: list[int]) -> None:
        if indices:
            self.hear(DONE, [(index, (((self.replica.name,), None, False, False),)) for index in indices])
        else:
            self.hear(DRY, module.PipelineStats({}, 1, 1))

    def close(self) -> None:
        """Nothing to close."""


class Slow(Fast):
    """The pipe to a replica that takes rows once, and answers them when it is told to, or after PATIENCE."""

    def send(self, message: tuple[str, list[Row]]) -> None:
        self.got += [row.index for row in message[1]]
        self.late = Timer(PATIENCE, self.answer, [self.got])
        self.late.start()


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[Replicas]:
    """A slow replica, cpu:0, and a fast one."""

    def start(replica: ReplicaProcess, inbox: Any) -> None:
        replica.pulling = replica.ready = False
        replica.process = SimpleNamespace(exitcode=-9, join=lambda **_: None, kill=lambda: None)
        replica.connection = (Slow if replica.name == "cpu:0" and not replica.deaths else Fast)(replica, inbox)

    monkeypatch.setattr(ReplicaProcess, "start", start)
    monkeypatch.setattr(ReplicaProcess, "end", lambda replica: None)
    monkeypatch.setattr(module, "HELD", HELD)
    task: Any = None
    checkpoint: Any = Nothing(torch.device("cpu"))
    replicas = Replicas(ModelSettings(), task, checkpoint, [torch.device("cpu")] * 2)
    try:
        yield replicas
    finally:
        replicas.close()
        slow: Any = replicas.known[0].connection
        if isinstance(slow, Slow):
            slow.late.cancel()


def rows() -> Iterator[Row]:
    return (Row(index, f"{index}.jpg") for index in range(ROWS_OF_ALL))


def check(results: list[Result]) -> None:
    assert [result.row.index for result in results] == list(range(ROWS_OF_ALL))


def test_rows_that_all_wait_for_are_computed_by_another_replica_too(two: Replicas) -> None:
    results = list(two.results(rows(), Stop()))
    check(results)
    slow, fast = (replica.connection.got for replica in two.replicas)
    assert len(slow) == module.PULLED and set(slow) < set(fast)
    assert {result.values for result in results} == {("cpu:1",)}


def test_results_that_come_late_are_not_given_twice(two: Replicas) -> None:
    results = []
    for result in two.results(rows(), Stop()):
        if not results:
            slow = two.replicas[0].connection
            slow.answer(slow.got)
        results.append(result)
    check(results)
    assert not two.replicas[0].hand and not two.finished


def test_rows_that_another_replica_has_finished_are_not_repeated_when_one_dies(
    two: Replicas, capsys: pytest.CaptureFixture[str]
) -> None:
    results = []
    for result in two.results(rows(), Stop()):
        if not results:
            two.replicas[0].connection.late.cancel()
            two.replicas[0].connection.hear(GONE)
        results.append(result)
    check(results)
    got = two.replicas[1].connection.got
    assert len(got) == len(set(got)) and not two.suspicion
    assert "the replica on cpu:0 died (SIGKILL)" in capsys.readouterr().err


def test_what_the_parent_writes_can_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(replica: ReplicaProcess, inbox: Any) -> None:
        replica.process = SimpleNamespace(exitcode=0, join=lambda **_: None, kill=lambda: None)
        replica.connection = Fast(replica, inbox)

    monkeypatch.setattr(ReplicaProcess, "start", start)
    monkeypatch.setattr(ReplicaProcess, "end", lambda replica: None)
    for owner, name in ((replica_process, "serve_rows"), (Replicas, "_results_of")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # which `measure` replaces
    feeding.write_manifest(tmp_path / "500.parquet", 500)
    measured = feeding.measure(tmp_path, ".jsonl", 500, 2, slow=False)
    assert measured.rows == 500 and measured.rows_a_second > 0
    assert len((tmp_path / "out-500.jsonl").read_text().splitlines()) == 500
