"""Messages on stderr: errors, warnings, notes, and the closing lines of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from blip2cli.host.terminal.progress import tell
from blip2cli.host.terminal.text import GLUE, figure

REASONS = 3
"""Details of errors of one kind that the closing lines show."""


def show_error(message: str, hint: str) -> None:
    """What is wrong, and what to do: two lines on stderr."""
    tell(f"blip2: {message}")
    if hint:
        tell(f"       {hint}", folded=False)  # it may be a command to copy


def show_note(message: str) -> None:
    """One line on stderr that says what was done."""
    tell(message)


def show_warning(message: str) -> None:
    """One line on stderr."""
    tell(f"blip2: warning: {message}")


def show_summary(summary: dict[str, Any]) -> None:
    """The closing lines on stderr."""
    where = f" to {summary['out']}" if summary["out"] else ""
    earlier = f", {summary['resumed_at']:,} before" if summary["resumed_at"] else ""
    if summary["already_there"]:
        earlier = f", {summary['already_there']:,} of the input already there"
    earlier += f" ({summary['errors_before']:,} with errors)" if summary["errors_before"] else ""
    left_out = f"{summary['left_out']:,} left out (below --threshold), " if summary["left_out"] else ""
    rows = "row" if summary["rows"] == 1 else "rows"
    seconds = f"{summary['seconds']:.1f}{GLUE}s"
    tell(
        f"{summary['rows']:,}{GLUE}{rows}{where}{earlier}, {left_out}{summary['errors']:,} with errors, "
        f"in{GLUE}{seconds}{_spent(summary)}"
    )
    for kind, count in Counter(summary["errors_by_kind"]).most_common():
        tell(f"  {count:,}{GLUE}{kind}{_reasons(summary['error_reasons'].get(kind, {}))}")


def _reasons(counts: Mapping[str, int]) -> str:
    """The most frequent details of errors of one kind, with their counts; one example if no detail repeats."""
    if len(counts) == 1:
        return f": {next(iter(counts))}"
    if not counts:
        return ""
    if max(counts.values()) == 1 and len(counts) > REASONS:
        return f": for example {next(iter(counts))}"
    shown = Counter(counts).most_common(REASONS)
    words = [f"{count:,}{GLUE}times {detail}" if count > 1 else detail for detail, count in shown]
    others = len(counts) - len(shown)
    return ": " + "; ".join([*words, f"{others:,} other reasons"] if others else words)


def _spent(summary: dict[str, Any]) -> str:
    """How the seconds were spent: loading, which no image waits for twice, and then at what speed."""
    if not summary["images"]:
        return ""
    shown = {name: f"{seconds:.1f}" for name, seconds in summary["phases"].items() if seconds >= 0.05}
    loading = shown.pop("loading", "0.0")
    speed = f"{figure(summary['images_per_second'])}{GLUE}images/s"
    phases = ", ".join(f"{name}{GLUE}{seconds}" for name, seconds in shown.items())
    return f" (loading{GLUE}{loading}; then {speed}{': ' if phases else ''}{phases})"
