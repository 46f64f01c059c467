"""What begins while libraries are imported: weights are read, and CUDA starts. No GPU is needed."""

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch

from blip2cli.errors import CheckpointError
from blip2cli.images.decode import Reading
from blip2cli.images.ready import ReadyProcesses
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.run import warmup
from blip2cli.run.plan import make_plan
from blip2cli.run.reading import reading_for
from blip2cli.settings import GenerationSettings, InputSettings, Job, ModelSettings, OutputSettings
from blip2cli.tasks.caption import CaptionOptions
from blip2cli.tiny import MODEL_DIR
from tests.conftest import Typed
from tests.images.test_image_processes import alive, children_of

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def finish(thread: threading.Thread | None) -> bool:
    """Whether anything was begun, once it is done."""
    if thread is not None:
        thread.join(60)
    return thread is not None


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """What the system was asked to read: file, first byte, bytes."""
    calls: list[tuple[int, int, int]] = []

    def advise(number: int, at: int, size: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        calls.append((os.fstat(number).st_ino, at, size))

    if not hasattr(os, "posix_fadvise"):
        pytest.skip(f"{sys.platform} has no posix_fadvise")
    monkeypatch.setattr(os, "posix_fadvise", advise)
    monkeypatch.setattr(warmup, "READ_AT_ONCE", 1 << 20)
    return calls


def test_all_of_the_weights_is_read_ahead(asked: list[tuple[int, int, int]]) -> None:
    weights = MODEL_DIR / "model.safetensors"
    assert finish(warmup.read_weights(ModelSettings(model=str(MODEL_DIR)), "generation"))
    assert {file for file, _, _ in asked} == {weights.stat().st_ino}
    assert [at for _, at, _ in asked] == list(range(0, weights.stat().st_size, 1 << 20))


@pytest.mark.parametrize("case", ["no such folder", "no weights", "too large", "bundled"])
def test_nothing_is_read_or_said_where_there_is_nothing_to_read(
    asked: list[tuple[int, int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    model = {"no such folder": "nobody/nothing", "no weights": str(tmp_path), "bundled": "tiny"}.get(case)
    if case == "too large":
        monkeypatch.setattr(warmup, "free_ram", lambda: 1000)
    settings = ModelSettings(model=model or str(MODEL_DIR))
    assert not finish(warmup.read_weights(settings, "generation")) and not asked


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (ModelSettings(), ["cuda"]),
        (ModelSettings(device="cuda:1"), ["cuda:1"]),
        (ModelSettings(device="cpu"), []),
        (ModelSettings(devices="all"), []),
    ],
)
def test_the_device_of_a_model_in_this_process_is_started(
    settings: ModelSettings, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", lambda size, device: started.append(device))
    assert finish(warmup.start_cuda(settings)) == bool(expected)
    assert started == expected


def test_a_device_that_does_not_start_is_left_to_the_run_to_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(size: int, device: str) -> None:
        raise RuntimeError("CUDA driver error")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", fail)
    assert finish(warmup.start_cuda(ModelSettings()))
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (CheckpointError("the weights are broken", "Copy them again."), 1, "blip2: the weights are broken\n"),
        (KeyboardInterrupt(), 130, "blip2: interrupted\n"),
    ],
)
@pytest.mark.parametrize("when", ["find_checkpoint", "load_model"])
def test_processes_that_started_early_end_with_a_run_that_does_not_load(
    typed: Callable[..., Typed],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    told: str,
    when: str,
) -> None:
    started: list[set[int]] = []
    before = set(children_of(os.getpid()))

    def fail(*arguments: object) -> None:
        deadline = time.monotonic() + 60
        while not (children := set(children_of(os.getpid())) - before) and time.monotonic() < deadline:
            time.sleep(0.01)
        started.append(children)
        raise error

    place = "blip2cli.model.checkpoint.find" if when == "find_checkpoint" else "blip2cli.run.pipeline"
    monkeypatch.setattr(f"{place}.{when}", fail)
    ran = typed("caption", str(EXAMPLES), "--workers", 1)
    assert (ran.code, ran.err.startswith(told), "Traceback" in ran.err) == (code, True, False), ran.err
    assert len(started) == 1 and started[0] and not any(map(alive, started[0]))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--workers", 2), 2),
        (("--workers", 0), 0),
        ((), 0),  # for few rows
        (("--workers", 2, "--devices", "cpu:2"), 0),
        (("--workers", 2, "--model", "nobody/nothing"), 0),
    ],
)
def test_processes_start_early_where_they_will_be_needed(words: tuple[object, ...], expected: int) -> None:
    options = dict(zip(words[::2], words[1::2], strict=True))
    settings = ModelSettings(
        model=str(options.get("--model", "tiny")),
        workers=options.get("--workers"),  # type: ignore[arg-type]
        devices=options.get("--devices"),  # type: ignore[arg-type]
    )
    inputs = InputSettings((str(EXAMPLES),))
    job = Job("caption", CaptionOptions(), inputs, OutputSettings(), settings, GenerationSettings())
    with closing(warmup.start_processes(make_plan(job))) as ready:
        assert (ready.pool.workers if ready.pool else 0) == expected
        if expected:
            find = find_checkpoint(settings)
            assert ready.reading == reading_for(find.images, settings)


def test_the_run_uses_the_processes_that_started_early(
    typed: Callable[..., Typed], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    take = ReadyProcesses.take

    def noted(self: ReadyProcesses, reading: Reading) -> object:
        pool = take(self, reading)
        taken.append(pool is not None and pool.workers)
        return pool

    monkeypatch.setattr(ReadyProcesses, "take", noted)
    assert typed("caption", str(EXAMPLES / "red-circle.png"), "--workers", 1).code == 0
    assert taken == [1]
