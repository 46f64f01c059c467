"""Precisions: which ones a device has, and which one `auto` is.

Nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from blip2cli.errors import UsageError
from blip2cli.host.processor import beyond_limit, instructions
from blip2cli.model.families import FAMILIES, Family

NATIVE_BF16 = ("avx512_bf16", "amx_bf16", "amx_tile", "bf16")
"""Instruction sets with which a processor multiplies bf16; the last one is Arm's."""


def resolve_dtype(asked: str, device: str, family: Family | None) -> str:
    """The precision that --dtype means.

    Args:
        asked: auto, fp32, fp16, bf16, int8 or int4.
        device: its type: cuda, mps or cpu.
        family: the language model's; None if there is no language model.

    Raises UsageError for a precision that is not available.
    """
    if family is not None and asked in family.refused:
        raise UsageError(f"--dtype {asked} gives garbage with {family.name}", f"Use --dtype {family.refused[asked]}.")
    if asked == "int8" and device == "mps":
        raise UsageError("--dtype int8 runs on CPU and CUDA only", "Use --dtype fp16.")
    if asked == "int4" and device != "cuda":
        raise UsageError("--dtype int4 runs on CUDA only", "Use --dtype int8 on a CPU.")
    if asked != "auto":
        return asked
    if device == "cuda":
        return "fp16" if family is None else family.half
    return "bf16" if device == "cpu" and native_bf16() else "fp32"


def automatic_dtypes(device: str) -> str:
    """What auto means on a type of device, as it is shown: "fp16, bf16 with Flan-T5"."""
    dtypes = {family.name: resolve_dtype("auto", device, family) for family in FAMILIES.values()}
    first = next(iter(dtypes.values()))
    exceptions = [f"{dtype} with {name}" for name, dtype in dtypes.items() if dtype != first]
    return ", ".join([first, *exceptions])


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """A context in which fp32 products and convolutions on CUDA may, or may not, round
    their inputs to TF32.

    With TF32 the Q-Former's features, of up to 4.7, stay within 1.5e-3, in a fifth of the
    time. PyTorch's default allows it for convolutions, which is enough to change texts.
    """
    name, switches = _tf32_switches()
    value: object = allowed if name == "allow_tf32" else "tf32" if allowed else "ieee"
    before = [getattr(switch, name) for switch in switches]
    for switch in switches:
        setattr(switch, name, value)
    try:
        yield
    finally:
        for switch, earlier in zip(switches, before, strict=True):
            setattr(switch, name, earlier)


def _tf32_switches() -> tuple[str, tuple[Any, ...]]:
    """PyTorch's switches for fp32 products and convolutions on CUDA, and the name of their
    value.

    A program that imports us may have set those of the newer name: then the older ones
    cannot be read, or do not say what holds for convolutions.
    """
    import torch

    newer = "fp32_precision", (torch.backends.cuda.matmul, getattr(torch.backends.cudnn, "conv", None))
    if any(getattr(part, "fp32_precision", "none") != "none" for part in (torch.backends, torch.backends.cudnn)):
        return newer
    older: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    try:
        for switch in older:
            _ = switch.allow_tf32
    except RuntimeError:
        return newer
    return "allow_tf32", older


def native_bf16() -> bool:
    """Whether this processor has instructions for bf16 (avx512_bf16, AMX, or bf16 of Arm)."""
    return has_instructions(NATIVE_BF16)


def has_instructions(wanted: Iterable[str]) -> bool:
    """Whether any of these instruction sets may be used, according to Linux or else
    PyTorch."""
    available = instructions()
    if available is None:  # not Linux
        import torch

        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        available = frozenset(name for name, value in capabilities.items() if value is True) - beyond_limit()
    return not available.isdisjoint(wanted)
