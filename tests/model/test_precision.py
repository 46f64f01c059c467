"""What `auto` picks, by what the machine can do."""

import pytest
import torch

from blip2cli.errors import UsageError
from blip2cli.model import precision


@pytest.mark.parametrize(
    ("device", "flan_t5", "native", "expected"),
    [
        ("cuda", False, True, "fp16"),
        ("cuda", True, False, "bf16"),
        ("cpu", False, True, "bf16"),
        ("cpu", True, False, "fp32"),
        ("mps", False, True, "fp32"),
    ],
)
def test_auto_follows_device_and_language_model(
    monkeypatch: pytest.MonkeyPatch, device: str, flan_t5: bool, native: bool, expected: str
) -> None:
    monkeypatch.setattr(precision, "instructions", lambda: frozenset(["avx512_bf16"] if native else ["avx2"]))
    assert precision.settled("auto", device, flan_t5) == expected


@pytest.mark.parametrize(
    ("asked", "device", "flan_t5"), [("fp16", "cuda", True), ("int8", "mps", False), ("int4", "cpu", False)]
)
def test_what_cannot_be_had_is_refused(asked: str, device: str, flan_t5: bool) -> None:
    with pytest.raises(UsageError, match=f"--dtype {asked}"):
        precision.settled(asked, device, flan_t5)


def test_linux_and_pytorch_say_the_same_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    if not getattr(torch.cpu, "get_capabilities", dict)():
        pytest.skip("this PyTorch does not say what the processor can do")
    by_linux = precision.native_bf16()
    monkeypatch.setattr(precision, "instructions", lambda: None)
    assert precision.native_bf16() == by_linux
