"""Which int8 kernel layers use: measured once, kept with its conditions, measured again when in doubt."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from blip2cli.errors import UsageError
from blip2cli.model.checkpoint import int8, kernel_choice
from blip2cli.model.checkpoint.kernel_choice import CACHE_FOLDER, OVERRIDE, KernelChoice, choose_kernels
from blip2cli.model.checkpoint.load import load_weights
from tests.conftest import Typed

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
BOTH = ("onednn-7bit", "dynamic-7bit")
CASES = kernel_choice._cases()


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What was measured, in a cache folder of the test; each measurement gives the last kernel."""
    calls: list[tuple[str, ...]] = []

    def measure(available: tuple[str, ...]) -> dict[str, str]:
        calls.append(available)
        return dict.fromkeys(CASES, available[-1])

    monkeypatch.setenv(CACHE_FOLDER, str(tmp_path / "cache"))
    monkeypatch.delenv(OVERRIDE, raising=False)
    monkeypatch.setattr(kernel_choice, "available_kernels", lambda: BOTH)
    monkeypatch.setattr(kernel_choice, "check_available", lambda: None)
    monkeypatch.setattr(kernel_choice, "_measure", measure)
    return calls


def kept(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "cache").iterdir()
    return file


def test_a_choice_is_measured_once(measured: list[tuple[str, ...]], tmp_path: Path) -> None:
    first, second = choose_kernels(), choose_kernels()
    assert measured == [BOTH]
    assert first.kernels == second.kernels == dict.fromkeys(CASES, BOTH[1])
    assert second.source == f"measured, kept in {kept(tmp_path)}"
    conditions = json.loads(kept(tmp_path).read_text())["conditions"]
    assert conditions["torch"] == torch.__version__ and conditions["threads"] == torch.get_num_threads()


@pytest.mark.parametrize("changed", ["torch", "processor", "instructions", "threads", "kernels"])
def test_another_machine_or_version_is_measured_again(
    measured: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    choose_kernels()
    changes: dict[str, tuple[object, str, object]] = {
        "torch": (torch, "__version__", "9.9"),
        "processor": (kernel_choice, "processor", lambda: "another"),
        "instructions": (kernel_choice, "instructions", lambda: frozenset({"avx2"})),
        "threads": (torch, "get_num_threads", lambda: 77),
        "kernels": (kernel_choice, "available_kernels", lambda: BOTH[::-1]),
    }
    monkeypatch.setattr(*changes[changed])
    choose_kernels()
    assert len(measured) == 2


def edited(content: dict[str, object]) -> dict[str, bytes]:
    """Ways in which the file may be damaged, or be of something else."""
    kernels = dict.fromkeys(CASES, BOTH[0])
    return {
        "empty": b"",
        "cut off": json.dumps(content).encode()[:-5],
        "not text": b"\xff\xfe\x00",
        "a list": b"[]",
        "deep": b"[" * 60_000,
        "large": b" " * (1 << 20) + json.dumps(content).encode(),
        "other conditions": json.dumps(content | {"conditions": {"torch": "1.0"}}).encode(),
        "no kernels": json.dumps(content | {"kernels": None}).encode(),
        "a kernel that is not here": json.dumps(content | {"kernels": kernels | {CASES[0]: "magic"}}).encode(),
        "a kernel that is no name": json.dumps(content | {"kernels": kernels | {CASES[0]: []}}).encode(),
        "a case missing": json.dumps(content | {"kernels": {CASES[0]: BOTH[0]}}).encode(),
    }


@pytest.mark.parametrize("damage", list(edited({})))
def test_a_damaged_or_foreign_file_is_measured_again(
    measured: list[tuple[str, ...]], tmp_path: Path, damage: str
) -> None:
    choose_kernels()
    file = kept(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(edited(json.loads(whole))[damage])
    assert choose_kernels().kernels == dict.fromkeys(CASES, BOTH[1])
    assert len(measured) == 2
    assert file.read_bytes() == whole, "and it is mended"
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


def test_a_cache_that_cannot_be_written_is_no_error(measured: list[tuple[str, ...]], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a folder")
    assert choose_kernels().kernels == choose_kernels().kernels
    assert len(measured) == 2
    assert choose_kernels().source.endswith("cannot be written")


def test_a_file_that_is_a_folder_is_no_error(measured: list[tuple[str, ...]], tmp_path: Path) -> None:
    choose_kernels()
    file = kept(tmp_path)
    file.unlink()
    file.mkdir()
    assert choose_kernels().kernels == dict.fromkeys(CASES, BOTH[1])
    assert [entry.name for entry in file.parent.iterdir()] == [file.name], "no temporary file is left"


def test_the_cache_folder_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CACHE_FOLDER)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert kernel_choice.cache_folder() == Path("/somewhere/blip2cli")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert kernel_choice.cache_folder() == Path(os.path.expanduser("~"), ".cache", "blip2cli")


@pytest.mark.int8
def test_a_kernel_can_be_named(measured: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    name = int8.available_kernels()[0]
    monkeypatch.setenv(OVERRIDE, name)
    assert set(choose_kernels().kernels.values()) == {name} and choose_kernels().source == f"set by {OVERRIDE}"
    monkeypatch.setenv(OVERRIDE, "fast")
    with pytest.raises(UsageError, match="BLIP2_INT8_KERNEL is fast, which is not an int8 kernel"):
        choose_kernels()
    monkeypatch.setenv(OVERRIDE, "onednn")
    monkeypatch.setattr(kernel_choice, "is_exact", lambda name: False)
    with pytest.raises(UsageError, match="onednn of BLIP2_INT8_KERNEL does not run here"):
        choose_kernels()
    monkeypatch.setenv(OVERRIDE, "auto")
    choose_kernels()
    assert measured == [BOTH]


def test_a_kernel_that_is_none_is_refused_before_anything_is_loaded(
    typed: Callable[..., Typed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OVERRIDE, "fast")
    ran = typed("caption", EXAMPLES / "red-circle.png", "--dtype", "int8", "--device", "cpu", "--dry-run")
    assert ran.code == 2
    assert ran.err.splitlines()[-2:] == [
        "blip2: BLIP2_INT8_KERNEL is fast, which is not an int8 kernel",
        "       Use auto, onednn, onednn-7bit, dynamic, dynamic-7bit.",
    ]


def test_one_kernel_needs_no_measurement(measured: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_choice, "available_kernels", lambda: BOTH[:1])
    assert set(choose_kernels().kernels.values()) == {BOTH[0]} and not measured


@pytest.mark.int8
def test_a_real_measurement_names_a_kernel_for_each_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_FOLDER, str(tmp_path))
    choice = choose_kernels()
    assert list(choice.kernels) == CASES and set(choice.kernels.values()) <= set(int8.available_kernels())
    assert choose_kernels().kernels == choice.kernels


@pytest.mark.parametrize(
    ("seconds", "expected"), [((1.0, 0.97), "first"), ((1.0, 0.92), "second"), ((1.0, 2.0), "first")]
)
def test_another_kernel_is_chosen_only_if_it_is_clearly_faster(seconds: tuple[float, float], expected: str) -> None:
    assert kernel_choice._fastest(dict(zip(("first", "second"), seconds, strict=True))) == expected


@pytest.mark.parametrize(
    ("others", "shown"),
    [
        (dict.fromkeys(CASES, "a"), "a"),
        (dict.fromkeys(CASES, "a") | {"text narrowing": "b", "text widening": "b"}, "a: vision, qformer; b: text"),
        (
            dict.fromkeys(CASES, "a") | {"text widening": "b"},
            "a: vision, qformer, text (narrowing); b: text (widening)",
        ),
    ],
)
def test_a_choice_is_shown_by_part(others: dict[str, str], shown: str) -> None:
    assert str(KernelChoice(dict.fromkeys(CASES, "a") | others, "")) == shown


def test_layers_follow_the_choice(opt_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layers of each part and shape get their own kernel."""
    from blip2cli.model.checkpoint import quantize
    from blip2cli.model.checkpoint.find import find_checkpoint
    from blip2cli.settings import ModelSettings

    names: Callable[[str], str] = lambda case: BOTH["text" in case or "vision narrowing" in case]  # noqa: E731
    if not all(int8.is_exact(name) for name in BOTH):
        pytest.skip("this PyTorch does not have both libraries")
    choice = KernelChoice({case: names(case) for case in CASES}, "")
    monkeypatch.setattr(quantize, "choose_kernels", lambda: choice)
    model = load_weights(find_checkpoint(ModelSettings(str(opt_checkpoint), dtype="int8", device="cpu")))
    small, dynamic = (int8.KERNELS[name] for name in BOTH)
    mlp = model.vision_model.encoder.layers[0].mlp
    assert (type(mlp.fc1.weight), type(mlp.fc2.weight)) == (small, dynamic)
    assert type(model.language_model.model.decoder.layers[0].fc1.weight) is dynamic
    assert type(model.language_projection.weight) is small
    assert mlp.fc1.by_image and not model.language_projection.by_image
