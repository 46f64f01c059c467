"""What a soak has done, what became of it, and the table that says so."""

import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.hostile.watched import Sample

MAY_GROW = 3e6
"""Bytes by which memory may grow between the third and the last quarter of the long run. Before, caches fill."""


@dataclass
class Score:
    """What was done, and what became of it."""

    blows: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    resumed: int = 0
    rows: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    left_over: int = 0
    blows_at_starts: int = 0


def check_rows(found: list[object] | list[str] | list[int], expected: list, what: str, score: Score) -> None:
    score.rows += len(found)
    if list(found) != list(expected):
        counts = Counter(found)
        lost, doubled = len(set(expected) - set(found)), sum(counts[name] > 1 for name in counts)
        score.faults.append(f"{what}: {len(found)} rows for {len(expected)}, {lost} lost, {doubled} names doubled")


def count_errors(errors: Iterator[str | None], score: Score) -> None:
    score.errors.update(error.partition(":")[0] for error in errors if error)


def growth(score: Score) -> list[str]:
    """What has grown in the long run."""
    samples = score.samples
    third, last = samples[len(samples) // 2 : 3 * len(samples) // 4], samples[3 * len(samples) // 4 :]
    if not third or not last:
        return ["the long run was too short to say what grows"]
    grown = []
    for name in ("memory", "descriptors", "processes"):
        early, late = (statistics.median(getattr(each, name) for each in part) for part in (third, last))
        if late > early + (MAY_GROW if name == "memory" else 1):
            grown.append(f"{name} grew from {early:,.0f} to {late:,.0f}")
    return grown


def table(score: Score, minutes: float, seed: int) -> str:
    """What happened, in Markdown."""
    lines = [
        f"| {minutes:g} minutes, seed {seed} | |",
        "|---|---|",
        f"| runs started, of these resumes | {score.runs:,}, {score.resumed:,} |",
        f"| rows compared | {score.rows:,} |",
        f"| error rows | {', '.join(f'{count:,} {kind}' for kind, count in score.errors.most_common()) or 'none'} |",
        f"| blows | {', '.join(f'{count:,} {kind}' for kind, count in score.blows.most_common())} |",
        f"| processes left over | {score.left_over} |",
        f"| peak memory of short runs, first and last tenth | {peaks(score)} |",
        "",
        "| long run, at | rows | memory | of its workers | descriptors | processes |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for part in range(1, 9):
        at = score.samples[max(0, len(score.samples) * part // 8 - 1)]
        memory, of_workers = (f"{each / 1e6:.0f} MB" for each in (at.memory, at.memory_of_workers))
        cells = (f"{at.seconds / 60:.1f} min", f"{at.rows:,}", memory, of_workers, at.descriptors, at.processes)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "Faults: " + ("none" if not score.faults else "")]
    return "\n".join([*lines, *(f"- {fault}" for fault in score.faults)])


def peaks(score: Score) -> str:
    few = max(1, len(score.peaks) // 10)
    parts = (score.peaks[:few], score.peaks[-few:])
    return ", ".join(f"{max(part, default=0) / 1e6:.0f} MB" for part in parts)
