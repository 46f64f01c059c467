"""Precisions: which may be asked for on which device, and which `auto` is. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Iterable

from blip2cli.errors import UsageError
from blip2cli.host.processor import beyond_limit, instructions

NATIVE_BF16 = ("avx512_bf16", "amx_bf16", "amx_tile")
"""Instruction sets by which a processor multiplies bf16 itself."""


def settled(asked: str, device: str, encoder_decoder: bool) -> str:
    """The precision asked for, with auto settled.

    Args:
        asked: auto, fp32, fp16, bf16, int8 or int4.
        device: its type: cuda, mps or cpu.
        encoder_decoder: whether the language model is Flan-T5.

    Raises UsageError for one that cannot be had.
    """
    if asked == "fp16" and encoder_decoder:
        raise UsageError("--dtype fp16 gives garbage with Flan-T5", "Use --dtype bf16 or fp32.")
    if asked == "int8" and device == "mps":
        raise UsageError("--dtype int8 runs on CPU and CUDA only", "Use --dtype fp16.")
    if asked == "int4" and device != "cuda":
        raise UsageError("--dtype int4 runs on CUDA only", "Use --dtype int8 on a CPU.")
    if asked != "auto":
        return asked
    if device == "cuda":
        return "bf16" if encoder_decoder else "fp16"
    return "bf16" if device == "cpu" and native_bf16() else "fp32"


def native_bf16() -> bool:
    """Whether this processor multiplies bf16 itself (avx512_bf16 or AMX)."""
    return has_any(NATIVE_BF16)


def has_any(wanted: Iterable[str]) -> bool:
    """Whether any of these instruction sets may be used, by what Linux or else PyTorch says of the processor."""
    known = instructions()
    if known is None:  # not Linux
        import torch

        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        known = frozenset(name for name, there in capabilities.items() if there is True) - beyond_limit()
    return not known.isdisjoint(wanted)
