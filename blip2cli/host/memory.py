"""Memory of this machine: how much is free, and what the control group (as of a
container) limits it to."""

from __future__ import annotations

import os
from pathlib import Path

CONTROL_GROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "anon"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "rss"),
)
"""Control groups of versions 2 and 1: the folder, the file with the limit, the name of
memory that no file backs."""

UNLIMITED = 1 << 60
"""Version 1 of control groups writes a number above this one if there is no limit."""


def free_ram() -> int:
    """Bytes of memory that can still be taken, within the control group's limit."""
    free = [_available()]
    for folder, limit_file, anonymous in CONTROL_GROUPS:
        limit = _read(folder / limit_file)
        statistics = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
        if limit.isdigit() and anonymous in statistics:
            free.append(max(int(limit) - int(statistics[anonymous]), 0))
    return min(free)


def group_limit() -> int | None:
    """Bytes of memory that the control group may take; None if there is no limit."""
    texts = [_read(folder / limit_file) for folder, limit_file, _ in CONTROL_GROUPS]
    numbers = [int(text) for text in texts if text.isdigit()]
    return min((number for number in numbers if number < UNLIMITED), default=None)


def _available() -> int:
    """Bytes that are free, whatever the control group allows."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return int(os.sysconf("SC_PHYS_PAGES")) * int(os.sysconf("SC_PAGE_SIZE")) // 2


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # there is no such control group
        return ""
