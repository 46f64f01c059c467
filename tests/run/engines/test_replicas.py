"""--devices: the same rows as one process writes, whatever becomes of the replicas."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from blip2cli.errors import Blip2Error
from blip2cli.host.signals import Stop
from blip2cli.host.stopwatch import Stopwatch
from blip2cli.inputs import Sources
from blip2cli.model.blip2 import Blip2Model
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.records import Batch, Result
from blip2cli.run.engines.replica_process import ReplicaProcess
from blip2cli.run.engines.replicas import Replicas
from blip2cli.run.pipeline import PipelineStats
from blip2cli.run.sources import open_input
from blip2cli.settings import GenerationSettings, InputSettings, Job, ModelSettings, OutputSettings
from blip2cli.tasks.caption import CaptionOptions, CaptionTask
from tests.chaos.chaos import EXAMPLES, contents, write_manifest
from tests.conftest import Start, Typed, approximate, rows_of
from tests.run.engines import starting

Run = Callable[..., Typed]
TWO = ("--devices", "cpu:2", "--workers", 1)
ROWS = 1000
CAPTION = ("caption", "m.jsonl", "--model", "tiny")
TASKS = [
    ("vqa", "-p", "what shape is it?", "-p", "is it red?", "--scores"),
    ("embed", "--features", "vision"),
]


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task[0])
def test_replicas_write_what_one_process_writes(typed: Run, task: tuple[str, ...]) -> None:
    write_manifest(Path("m.jsonl"), 100)
    words = (task[0], "m.jsonl", *task[1:], "--dtype", "fp32")
    assert typed(*words, "--out", "one.jsonl").code == 3
    ran = typed(*words, "--out", "two.jsonl", *TWO)
    assert ran.code == 3 and "warning" not in ran.err, ran.err
    one, two = (rows_of(Path(name).read_text()) for name in ("one.jsonl", "two.jsonl"))
    assert two == approximate(one)


def test_a_phase_that_only_some_replicas_came_to_is_averaged_too() -> None:
    known = [
        SimpleNamespace(stats=PipelineStats(seconds, 4, size))
        for seconds, size in (({"reading": 1.0}, 4), ({"reading": 2.0, "ranking": 3.0}, 2))
    ]
    replicas = object.__new__(Replicas)
    replicas.known = known  # type: ignore[assignment]  # all that is asked of them
    assert replicas.stats() == PipelineStats({"reading": 1.5, "ranking": 1.5}, 4, 2)


@pytest.mark.usefixtures("quick_start")
def test_an_output_begun_by_one_process_is_gone_on_with_and_mended_by_replicas(typed: Run) -> None:
    write_manifest(Path("m.jsonl"), 40)
    assert typed("caption", "m.jsonl", "--out", "one.jsonl").code == 3
    assert typed("caption", "m.jsonl", "--out", "two.jsonl", "--limit", 15).code == 3
    assert typed("caption", "m.jsonl", "--out", "two.jsonl", "--resume", *TWO).code == 3
    assert contents(Path("one.jsonl")) == contents(Path("two.jsonl"))
    for name in ("gone3.png", "gone10.png", "gone17.png", "gone24.png", "gone31.png", "gone38.png"):
        Path(name).write_bytes((EXAMPLES / "red-circle.png").read_bytes())
    assert typed("caption", "m.jsonl", "--out", "two.jsonl", "--resume", "--retry-errors", *TWO).code == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--devices", "gpu"), "--devices gpu is not a list of devices"),
        (("--devices", "cpu:0"), "--devices cpu:0 asks for 0 replicas"),
        (("--devices", "cpu:9999"), "Give 1 to 1024."),
        (("--devices", "cuda:0,cuda:0"), "--devices cuda:0,cuda:0 names a device twice"),
        (("--devices", "cpu:2", "--device", "cpu"), "--device cannot be used with --devices"),
    ],
)
def test_what_is_no_list_of_devices_is_told(typed: Run, given: tuple[str, ...], said: str) -> None:
    ran = typed("caption", EXAMPLES, *given)
    assert (ran.code, said in ran.err, len(ran.err.splitlines())) == (2, True, 2), ran.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("devices", ["all", "cuda:0,cuda:1"])
def test_devices_that_are_not_there_are_told(typed: Run, devices: str) -> None:
    ran = typed("caption", EXAMPLES, "--devices", devices)
    assert (ran.code, "this PyTorch sees no CUDA device" in ran.err) == (2, True), ran.err


@pytest.mark.usefixtures("quick_start")
def test_what_every_replica_fails_of_is_told_once(typed: Run) -> None:
    ran = typed("caption", EXAMPLES, *TWO, "--max-new-tokens", 100_000)
    assert (ran.code, len(ran.err.splitlines())) == (2, 2), ran.err
    assert "is more than the model has room for" in ran.err


def replicas_of(pid: int) -> list[int]:
    """Processes that run a replica, once there are rows."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(OSError):  # one that has ended meanwhile
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def wait_for_rows(path: Path, run: Any) -> None:
    """Wait for the first; on a busy machine three programs take a minute to import PyTorch."""
    deadline = time.monotonic() + 150
    while run.exitcode is None and time.monotonic() < deadline:
        if path.exists() and path.stat().st_size:
            return
        time.sleep(0.05)
    raise AssertionError("no rows came")


@pytest.fixture(scope="module")
def undisturbed(forked: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process writes for a manifest of ROWS rows."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_manifest(folder / "m.jsonl", ROWS)
    run = forked(folder, *CAPTION, "--out", "one.jsonl")
    run.join(100)
    assert run.exitcode == 3
    return folder / "one.jsonl"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_replica_is_replaced_and_loses_no_row(undisturbed: Path, forked: Start, tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.jsonl", ROWS)
    run = forked(tmp_path, *CAPTION, "--out", "two.jsonl", "--commit-every", 0.1, "--batch-size", 1, *TWO)
    wait_for_rows(tmp_path / "two.jsonl", run)
    os.kill(replicas_of(run.pid)[0], signal.SIGKILL)
    run.join(100)
    told = (tmp_path / "told.txt").read_text()
    assert run.exitcode == 3 and "died (SIGKILL); it is started again, and its rows repeated" in told
    assert contents(undisturbed) == contents(tmp_path / "two.jsonl")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_leaves_no_replica_and_goes_on(
    undisturbed: Path, forked: Start, typed: Run, tmp_path: Path, number: int
) -> None:
    write_manifest(Path("m.jsonl"), ROWS)
    run = forked(tmp_path, *CAPTION, "--out", "two.jsonl", "--commit-every", 0.1, "--batch-size", 1, *TWO)
    wait_for_rows(tmp_path / "two.jsonl", run)
    replicas = replicas_of(run.pid)
    os.kill(run.pid, number)
    run.join(60)
    assert run.exitcode == (130 if number == signal.SIGINT else -number)
    for _ in range(200):
        if not any(Path(f"/proc/{pid}").exists() for pid in replicas):
            break
        time.sleep(0.05)
    assert len(replicas) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in replicas)
    assert typed("caption", "m.jsonl", "--out", "two.jsonl", "--resume", "--batch-size", 1).code == 3
    assert contents(undisturbed) == contents(Path("two.jsonl"))


class Deadly(CaptionTask):
    """Captions, but for images whose names say that they kill."""

    def results(self, model: Blip2Model, batches: Iterator[Batch], watch: Stopwatch) -> Iterator[Result]:
        return super().results(model, self._survived(batches), watch)

    @staticmethod
    def _survived(batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            if any("deadly" in row.name and row.error is None for row in batch.rows):
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch


def started_with(kind: type[CaptionTask], folder: Path, names: list[str]) -> tuple[Replicas, Sources]:
    paths = []
    for at, name in enumerate(names):
        paths.append(str(folder / f"{at:03}-{name}.png"))
        Path(paths[-1]).write_bytes((EXAMPLES / "red-circle.png").read_bytes())
    model = ModelSettings(model="tiny", device="cpu", workers=0)
    job = Job("caption", CaptionOptions(), InputSettings(tuple(paths)), OutputSettings(), model, GenerationSettings())
    task: Any = kind(job)
    return Replicas(model, task, find_checkpoint(model), [torch.device("cpu")] * 2), open_input(job, task)


@pytest.mark.usefixtures("quick_start")
def test_a_row_that_kills_its_replica_time_and_again_becomes_an_error_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blip2cli.run.engines.replicas.HELD", 1)  # hardly any row may be ahead of those repeated
    monkeypatch.setattr("blip2cli.run.engines.replicas.PULLED", 1)
    replicas, source = started_with(Deadly, tmp_path, ["good"] * 5 + ["deadly"] + ["good"] * 5)
    try:
        results = list(replicas.results(source.rows(), Stop()))
    finally:
        replicas.close()
    assert [result.row.index for result in results] == list(range(11))
    assert [str(result.error) for result in results if result.error] == [
        "crashed: the model's process crashed on this row (SIGKILL)"
    ]
    assert results[5].error and results[4].values == ("a red circle",)


class Stopping(CaptionTask):
    """Captions, but for an image that stops the process that sees it first."""

    def results(self, model: Blip2Model, batches: Iterator[Batch], watch: Stopwatch) -> Iterator[Result]:
        for result in super().results(model, batches, watch):
            marker = Path(result.row.name).with_suffix(".seen")
            if marker.stem.endswith("-stop") and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGSTOP)
            yield result


@pytest.mark.usefixtures("quick_start")
def test_a_replica_that_was_stopped_is_noticed_and_its_rows_are_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("blip2cli.run.engines.replica_process.SILENT_SECONDS", 5.0)
    monkeypatch.setattr("blip2cli.run.engines.replicas.PULLED", 1)
    replicas, source = started_with(Stopping, tmp_path, ["good"] * 5 + ["stop"] + ["good"] * 5)
    with closing(replicas):
        results = list(replicas.results(source.rows(), Stop()))
    assert [result.row.index for result in results] == list(range(11))
    assert {result.values for result in results} == {("a red circle",)}
    assert "died (no answer); it is started again" in capsys.readouterr().err


class Unreadable(CaptionTask):
    """Captions for which something cannot be read."""

    def results(self, model: Blip2Model, batches: Iterator[Batch], watch: Stopwatch) -> Iterator[Result]:
        raise OSError("a disk of its own")


@pytest.mark.usefixtures("quick_start")
def test_what_a_replica_raises_is_raised_and_is_no_death(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="a disk of its own"):
        replicas, source = started_with(Unreadable, tmp_path, ["good"])
        with closing(replicas):
            list(replicas.results(source.rows(), Stop()))
    assert "died" not in capsys.readouterr().err


@pytest.mark.usefixtures("quick_start")
def test_when_all_replicas_have_died_too_often_the_run_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("blip2cli.run.engines.replicas.SUSPECT", 100)  # so that no row is ever found guilty
    replicas, source = started_with(Deadly, tmp_path, ["deadly"] * 3)
    try:
        with pytest.raises(Blip2Error, match=r"every replica has died; .* 3 times, at last with SIGKILL"):
            list(replicas.results(source.rows(), Stop()))
    finally:
        replicas.close()
    assert "continuing without it" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_replica_that_starts_leaves_signals_to_the_run(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes to all processes of a terminal, and one that still imports would show a traceback."""
    monkeypatch.setattr("blip2cli.run.engines.replica_process.serve_rows", starting.serve)
    setup: Any = None
    replica, inbox = ReplicaProcess("cpu:0", setup), SimpleQueue[Any]()
    replica.start(inbox)
    try:
        os.kill(replica.process.pid, number)
        assert inbox.get(timeout=60)[2] == ("started",)
    finally:
        replica.end()


@pytest.mark.usefixtures("quick_start")
def test_replicas_are_gone_also_where_their_end_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replicas, _ = started_with(CaptionTask, tmp_path, ["good"])
    ended = []

    def interrupted(replica: Any) -> None:
        ended.append(replica)
        raise KeyboardInterrupt

    monkeypatch.setattr(type(replicas.replicas[0]), "end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replicas.close()
    assert len(ended) == 1
    for replica in replicas.replicas:
        replica.process.join(10)
        assert not replica.process.is_alive()
        replica.connection.close()
