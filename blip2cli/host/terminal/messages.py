"""Messages on stderr: errors, warnings, notes, and the closing lines of a run."""

from __future__ import annotations

from collections import Counter
from typing import Any

from blip2cli.host.terminal.progress import tell
from blip2cli.host.terminal.text import figure


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
    tell(
        f"{summary['rows']:,} {rows}{where}{earlier}, {left_out}{summary['errors']:,} with errors, "
        f"in {summary['seconds']:.1f} s{_spent(summary)}"
    )
    for kind, count in Counter(summary["errors_by_kind"]).most_common():
        tell(f"  {count:,} {kind}")


def _spent(summary: dict[str, Any]) -> str:
    """How the seconds were spent: loading, which no image waits for twice, and then at what speed."""
    if not summary["images"]:
        return ""
    shown = {name: f"{seconds:.1f}" for name, seconds in summary["phases"].items() if seconds >= 0.05}
    loading = shown.pop("loading", "0.0")
    speed = f"{figure(summary['images_per_second'])} images/s"
    phases = ", ".join(f"{name} {seconds}" for name, seconds in shown.items())
    return f" (loading {loading}; then {speed}{': ' if phases else ''}{phases})"
