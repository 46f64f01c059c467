"""This machine: its description, its peak of matrix products and its memory bandwidth."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable

import torch

from blip2cli import __version__
from blip2cli.host.processor import cores, instructions, isa_limit, processor


def describe_machine() -> str:
    """Processor, cores and versions, in a line."""
    import transformers

    flags = [flag for flag in ("avx_vnni", "avx512_bf16", "avx512_vnni", "amx_bf16") if flag in (instructions() or ())]
    limit = f", limited to {isa_limit()}" if isa_limit() else ""
    return (
        f"{processor()} ({', '.join(flags) or 'no bf16 or int8 instructions'}{limit}), {cores()} cores, "
        f"Python {platform.python_version()}, PyTorch {torch.__version__}, transformers {transformers.__version__}, "
        f"blip2cli {__version__}"
    )


def matrix_peak(dtype: torch.dtype, side: int = 3072) -> float:
    """GFLOP/s of a large square matrix product, the best of several."""
    a = torch.randn(side, side).to(dtype)
    return 2 * side**3 / _best(lambda: a @ a) / 1e9


def memory_bandwidth(size: int = 100_000_000) -> float:
    """GB/s of reading an array far larger than the caches, the best of several."""
    a = torch.ones(size)
    return size * 4 / _best(lambda: a.sum()) / 1e9


def _best(run: Callable[[], object], times: int = 5) -> float:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return min(taken)
