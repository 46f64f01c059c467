"""A process and those below it, as they are seen from outside: memory, descriptors, numbers."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Sample:
    """A process at one time, and those below it: bytes of memory, open descriptors, and numbers."""

    seconds: float
    rows: int
    memory: int
    memory_of_workers: int
    descriptors: int
    processes: int


def descendants(pid: int) -> list[int]:
    """Processes below one, zombies left out."""
    found = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                if alive(child):
                    found += [child, *descendants(child)]
    except OSError:
        pass
    return found


def alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def memory_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def sample(pid: int, seconds: float, rows: int) -> Sample:
    below = descendants(pid)
    try:
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        descriptors = 0
    return Sample(seconds, rows, memory_of(pid), sum(map(memory_of, below)), descriptors, 1 + len(below))


def has_started(worker: int) -> bool:
    """Whether a worker has loaded what it decodes with."""
    try:
        return "_imaging" in Path(f"/proc/{worker}/maps").read_text()
    except OSError:
        return False
