"""What this machine is: its processor and how much of it this process may use. Nothing heavy is imported."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

QUOTAS = (
    (Path("/sys/fs/cgroup/cpu.max"),),
    (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")),
)
"""Where the kernel says the share of a control group (versions 2 and 1): microseconds of processor time, in what."""


def processor() -> str:
    """The processor's name."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


@cache
def instructions() -> frozenset[str] | None:
    """The processor's instruction sets as Linux names them, such as avx512_bf16; None where it does not say."""
    flags = _cpuinfo("flags") or _cpuinfo("Features")
    return frozenset(flags.split()) if flags else None


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
