"""What `auto` picks, by what the machine can do."""

import dataclasses
from pathlib import Path

import pytest
import torch

from blip2cli.errors import UsageError
from blip2cli.host import processor
from blip2cli.model import blip2
from blip2cli.model.blip2 import Blip2Model
from blip2cli.model.checkpoint import precision
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.checkpoint.precision import tf32
from blip2cli.model.decoding.opt import OptDecoder
from blip2cli.model.decoding.requests import Request
from blip2cli.model.families import FLAN_T5, OPT, Family
from blip2cli.model.graphs import Eager
from blip2cli.records import Batch
from blip2cli.settings import GenerationSettings, ModelSettings


@pytest.mark.parametrize(
    ("device", "family", "native", "expected"),
    [
        ("cuda", OPT, True, "fp16"),
        ("cuda", FLAN_T5, False, "bf16"),
        ("cuda", None, False, "fp16"),
        ("cpu", OPT, True, "bf16"),
        ("cpu", FLAN_T5, False, "fp32"),
        ("mps", OPT, True, "fp32"),
    ],
)
def test_auto_follows_device_and_language_model(
    monkeypatch: pytest.MonkeyPatch, device: str, family: Family | None, native: bool, expected: str
) -> None:
    monkeypatch.setattr(precision, "instructions", lambda: frozenset(["avx512_bf16"] if native else ["avx2"]))
    assert precision.resolve_dtype("auto", device, family) == expected


@pytest.mark.parametrize(
    ("asked", "device", "family"), [("fp16", "cuda", FLAN_T5), ("int8", "mps", OPT), ("int4", "cpu", None)]
)
def test_what_cannot_be_had_is_refused(asked: str, device: str, family: Family | None) -> None:
    with pytest.raises(UsageError, match=f"--dtype {asked}"):
        precision.resolve_dtype(asked, device, family)


def test_bf16_without_native_support_is_cautioned_of_and_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "instructions", lambda: frozenset({"avx2"}))
    assert find_checkpoint(ModelSettings("tiny", device="cpu")).precision == "fp32"
    caution = find_checkpoint(ModelSettings("tiny", dtype="bf16", device="cpu")).caution
    assert caution is not None and caution.startswith("this processor has no bf16 instructions")
    assert find_checkpoint(ModelSettings("tiny", dtype="fp32", device="cpu")).caution is None
    monkeypatch.setattr(precision, "instructions", lambda: frozenset({"avx512_bf16"}))
    assert find_checkpoint(ModelSettings("tiny", dtype="bf16", device="cpu")).caution is None


@pytest.mark.parametrize(
    ("limit", "bf16", "vnni"),
    [
        (None, True, True),
        ("AVX2", False, False),
        ("avx512_core", False, False),
        ("AVX512_CORE_VNNI", False, True),
        ("AVX512_CORE_BF16", True, True),
        ("DEFAULT", True, True),
    ],
)
def test_limits_on_instruction_sets_are_heeded(
    monkeypatch: pytest.MonkeyPatch, limit: str | None, bf16: bool, vnni: bool
) -> None:
    everything = frozenset({"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_tile"})
    for name in processor.ISA_LIMITS:
        monkeypatch.delenv(name, raising=False)
    if limit is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    monkeypatch.setattr(processor, "_flags", lambda: everything)
    assert precision.native_bf16() == bf16
    assert precision.has_instructions(["avx512_vnni"]) == vnni
    monkeypatch.setattr(processor, "_flags", lambda: None)  # not Linux: what PyTorch says, within the same limit
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(everything, True), raising=False)
    assert precision.native_bf16() == bf16


@pytest.mark.int8
@pytest.mark.parametrize(
    ("features", "expected"),
    [("fp asimd asimddp i8mm bf16", "bf16"), ("fp asimd asimdhp asimddp", "fp32"), ("fp asimd", "fp32")],
)
def test_bf16_of_arm_is_chosen_by_what_linux_lists(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, features: str, expected: str
) -> None:
    """Graviton 3, Graviton 2 and Cortex-A72, as in their /proc/cpuinfo."""
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nFeatures\t: {features}\nCPU architecture: 8\n")
    for name in processor.ISA_LIMITS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(processor, "_flags", processor._flags.__wrapped__)
    checkpoint = find_checkpoint(ModelSettings("tiny", device="cpu"))
    assert checkpoint.precision == expected
    as_int8 = find_checkpoint(ModelSettings("tiny", dtype="int8", device="cpu"))
    assert as_int8.dtype == {"bf16": torch.bfloat16, "fp32": torch.float32}[expected]


@pytest.mark.parametrize(("dtype", "allowed"), [("fp32", False), ("bf16", True)])
def test_tf32_is_for_half_precision_and_is_not_left_behind(
    opt_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, allowed: bool
) -> None:
    """As on CUDA: the device is named after the model was loaded on the CPU."""
    model = Blip2Model(find_checkpoint(ModelSettings(str(opt_checkpoint), dtype=dtype, device="cpu")), 2)
    monkeypatch.setattr(model, "checkpoint", dataclasses.replace(model.checkpoint, device=torch.device("cuda")))
    before, seen = flags(), []
    for owner, name in ((model.encoder, "vision"), (OptDecoder, "step")):
        original = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *given, original=original: seen.append(flags()) or original(*given)
        )  # fmt: skip
    monkeypatch.setattr(blip2, "runner_for", lambda devices: Eager())
    pixels = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    (image,) = model.encode(Batch((), pixels, (), (), (b"0",)))
    image.uses = 1
    settings = GenerationSettings(min_new_tokens=3)
    for _ in model.generate([Request(0, image, model.prompt_ids(None), (3, 3))], settings):
        assert flags() == before, "nor while what is yielded is used"
    assert len(seen) == 4 and set(seen) == {(allowed, allowed)}
    assert flags() == before


@pytest.mark.parametrize("allowed", [False, True])
def test_a_program_may_have_set_the_newer_switches(allowed: bool) -> None:
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("this PyTorch does not have them")
    switches = torch.backends, torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [switch.fp32_precision for switch in switches]
    try:
        torch.backends.fp32_precision = "tf32"
        set_by_program = [switch.fp32_precision for switch in switches]
        with tf32(allowed):
            value = "tf32" if allowed else "ieee"
            assert [switch.fp32_precision for switch in switches[1:]] == [value, value]
        assert [switch.fp32_precision for switch in switches] == set_by_program
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


def flags() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_linux_and_pytorch_say_the_same_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    if not getattr(torch.cpu, "get_capabilities", dict)():
        pytest.skip("this PyTorch does not say what the processor can do")
    by_linux = precision.native_bf16()
    monkeypatch.setattr(precision, "instructions", lambda: None)
    assert precision.native_bf16() == by_linux
