"""`blip2 doctor`: every probe is a line, and only what the tool cannot run with is a problem."""

import importlib.metadata
import subprocess
import sys
import threading
from collections import Counter, namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import blip2cli
from blip2cli.commands import doctor
from blip2cli.commands.doctor import Check, checks
from blip2cli.host import memory
from blip2cli.host import processor as machine
from blip2cli.settings import ModelSettings
from tests.conftest import Typed

Run = Callable[..., Typed]
TINY = ModelSettings("tiny")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def found(probe: doctor.Probe, settings: ModelSettings = TINY) -> dict[str, Check]:
    return {check.name: check for check in probe(settings)}


def test_a_machine_that_can_run_is_told_so(typed: Run) -> None:
    ran = typed("doctor")
    assert ran.code == 0, ran.out
    told = {row["name"]: row for row in ran.rows}
    assert set(told) > {"blip2", "python", "torch", "processor", "cores", "dtype auto", "memory", "cache", "hub"}
    assert Counter(row["state"] for row in ran.rows).keys() <= {"ok", "note"}
    assert all(row["hint"] for row in ran.rows if row["state"] == "note")
    assert told["blip2"]["found"] == f"{blip2cli.__version__}, in {Path(blip2cli.__file__).parent}"
    assert told["torch"]["found"] == torch.__version__
    assert told["model"]["found"] == "tiny (BLIP2_MODEL), on this machine"
    assert told["self-test"]["found"].startswith("tiny says 'a red circle'; loaded in ")
    assert list(told)[-1] == "self-test"


def test_a_self_test_that_fails_is_a_problem_and_exit_code_1(typed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    few = {name: doctor.PROBES[name] for name in ("open files", "self-test")}
    monkeypatch.setattr(doctor, "PROBES", few)
    monkeypatch.setattr(doctor, "drawn", lambda: Image.new("RGB", (64, 64), "white"))
    ran = typed("doctor", "--json")
    assert ran.code == 1
    assert (ran.rows[-1]["name"], ran.rows[-1]["state"]) == ("self-test", "problem")
    assert "and not 'a red circle'" in ran.rows[-1]["found"]
    ran = typed("doctor", "--device", "cuda:77")
    assert ran.code == 1 and ran.rows[-1]["found"].startswith("UsageError: --device cuda:77: ")
    assert ran.rows[-1]["hint"]


def test_a_probe_that_fails_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: ModelSettings) -> Any:
        yield Check("first", "ok", "well")
        raise OSError("no\nsuch thing")

    monkeypatch.setattr(doctor, "PROBES", {"broken": fail, "open files": doctor.limits})
    assert [(check.name, check.state) for check in checks(TINY)][:2] == [("first", "ok"), ("broken", "note")]
    assert [check.found for check in checks(TINY)][1] == "OSError: no such thing"
    assert [check.name for check in checks(TINY)][2] == "open files"


def test_packages_that_are_missing_or_of_another_version_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["torch>=2.4", "rich>=9999", "no-such-package", 'ray[data]>=2 ; extra == "ray"', 'gone ; extra == "int8"']
    lines += ['gone ; python_version < "3"', 'pytest ; extra == "dev"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    told = found(doctor.versions)
    assert list(told)[2:] == ["torch", "rich", "no-such-package"]
    assert [told[name].state for name in ("torch", "rich", "no-such-package")] == ["ok", "note", "problem"]
    assert told["rich"].found.endswith(", but >=9999 is needed") and told["rich"].hint == "pip install 'rich>=9999'"
    told = found(doctor.extras)
    assert list(told) == ["extra ray", "extra int8"]
    assert (told["extra int8"].found, told["extra int8"].hint) == ("gone not installed", "pip install 'blip2cli[int8]'")


@pytest.mark.parametrize(
    ("quota", "state"), [("150000 100000", "note"), ("max 100000", "ok"), ("6400000 100000", "ok")]
)
def test_a_quota_below_the_cores_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, state: str
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(machine, "QUOTAS", ((tmp_path / "gone",), (tmp_path / "cpu.max",)))
    monkeypatch.setattr(doctor, "cores", lambda: 8)
    told = found(doctor.cpu)["cores"]
    assert told.state == state
    assert state == "ok" or ("1.5" in told.found and "OMP_NUM_THREADS=1" in told.hint)


def test_gpus_are_told_with_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (40_000_000_000, 80_000_000_000))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"GPU {number}")
    assert found(doctor.devices)["cuda:1"] == Check("cuda:1", "ok", "GPU 1, 40.0 GB of 80.0 GB free")
    assert found(doctor.dtype)["dtype auto"].found.startswith("fp16, bf16 with Flan-T5 on cuda: ")


def test_little_memory_disk_or_files_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource
    import shutil

    usage = namedtuple("usage", "total used free")  # as shutil's own
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(64 << 20, 0, 1_000_000_000))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 4096))
    (tmp_path / "memory.max").write_text("8000000000")
    monkeypatch.setattr(memory, "CONTROL_GROUPS", ((tmp_path, "memory.max", "anon"),))
    told = found(doctor.memory) | found(doctor.disk) | found(doctor.limits)
    assert told.pop("memory").found.endswith("free, limited to 8.0 GB")
    assert {check.state for check in told.values()} == {"note"} and all(check.hint for check in told.values())


def test_a_model_that_is_not_here_is_noted(tmp_path: Path) -> None:
    assert found(doctor.cache, ModelSettings("nobody/nothing"))["model"].state == "note"
    empty = found(doctor.cache, ModelSettings(str(tmp_path)))["model"]
    assert empty.state == "problem" and "no config.json" in empty.found
    (tmp_path / "config.json").touch()
    assert found(doctor.cache, ModelSettings(str(tmp_path)))["model"].found == f"{tmp_path} (--model), on this machine"


@pytest.mark.parametrize("answer", ["200", "silence", "refused"])
def test_the_hub_is_asked_shortly(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    told = threading.Event()

    class Session:
        def head(self, url: str, timeout: float) -> Any:
            if answer == "silence":
                told.wait()
            if answer == "refused":
                raise ConnectionError("nobody\nthere")
            return namedtuple("Answer", "status_code")(200)

    assert found(doctor.hub)["hub"].found == "not checked: HF_HUB_OFFLINE is set"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "hub.test")
    monkeypatch.setattr("huggingface_hub.utils.get_session", Session)
    monkeypatch.setattr(doctor, "SECONDS", 0.1)
    check = found(doctor.hub)["hub"]
    told.set()
    expected = {"200": "(HTTP 200)", "silence": "(no answer in 0.1 s)", "refused": "(ConnectionError: nobody there)"}
    assert check.found.startswith("hub.test ") and check.found.endswith(expected[answer])
    assert check.state == ("ok" if answer == "200" else "note")


def test_the_terminal_shows_a_line_a_check_and_hints_below() -> None:
    script = "from blip2cli.host.terminal import show_check; show_check('disk', 'note', 'full \\x1b[31m', 'Make room.')"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == f"note    disk              full  [31m\n{' ' * 26}Make room.\n"
