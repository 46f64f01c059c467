"""The processor of this machine, and how much of it this process may use. Imports nothing heavy."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

ISA_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Variables that limit oneDNN, PyTorch's library of matrix products, to the instruction sets of older processors."""

ISA_ORDER = (
    ("SSE41", ()),
    ("AVX", ("avx",)),
    ("AVX2", ("avx2",)),
    ("AVX2_VNNI", ("avx_vnni",)),
    ("AVX2_VNNI_2", ()),
    ("AVX512_CORE", ("avx512f",)),
    ("AVX512_CORE_VNNI", ("avx512_vnni",)),
    ("AVX512_CORE_BF16", ("avx512_bf16",)),
    ("AVX512_CORE_FP16", ("avx512_fp16",)),
    ("AVX512_CORE_AMX", ("amx_tile", "amx_bf16", "amx_int8")),
)
"""oneDNN's names of instruction sets, oldest first, and those of Linux that each adds.

Source: oneDNN's developer guide, "CPU Dispatcher Control". Later names than these limit no instruction set that is
used here.
"""

QUOTAS = (
    (Path("/sys/fs/cgroup/cpu.max"),),
    (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")),
)
"""The files with the CPU limit of a control group (versions 2 and 1): microseconds of time, and the period."""


def processor() -> str:
    """The processor's name."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def instructions() -> frozenset[str] | None:
    """The instruction sets that may be used, as Linux names them, such as avx512_bf16; None if it is not known.

    Those that a limit in the environment rules out are left out.
    """
    flags = _flags()
    return None if flags is None else flags - beyond_limit()


@cache
def _flags() -> frozenset[str] | None:
    """The instruction sets of the processor itself."""
    flags = _cpuinfo("flags") or _cpuinfo("Features")
    return frozenset(flags.split()) if flags else None


def isa_limit() -> str | None:
    """The limit on instruction sets that the environment sets for oneDNN, such as AVX2; None without one."""
    return next((os.environ[name].upper() for name in ISA_LIMITS if os.environ.get(name)), None)


def beyond_limit() -> frozenset[str]:
    """The instruction sets that the environment's limit rules out."""
    names = [name for name, _ in ISA_ORDER]
    limit = isa_limit()
    if limit not in names:
        return frozenset()
    return frozenset(flag for _, flags in ISA_ORDER[names.index(limit) + 1 :] for flag in flags)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def core_quota() -> float | None:
    """Cores' worth of time that the control group gives this process; None without a limit."""
    for files in QUOTAS:
        try:
            quota, period = " ".join(file.read_text() for file in files).split()
            if int(quota) > 0:
                return int(quota) / int(period)
        except (OSError, ValueError):  # no such control group, or "max"
            continue
    return None


def _cpuinfo(name: str) -> str:
    if not os.access(CPUINFO, os.R_OK):
        return ""
    lines = (line.partition(":") for line in CPUINFO.read_text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")
