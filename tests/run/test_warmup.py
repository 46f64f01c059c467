"""What begins while libraries are imported: weights are read, and CUDA starts. No GPU is needed."""

import os
import sys
import threading
from pathlib import Path

import pytest
import torch

from blip2cli.run import warmup
from blip2cli.settings import ModelSettings
from blip2cli.tiny import MODEL_DIR


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
