"""What was confused with what, as JSON and as a table; of many labels, only what was confused most."""

from __future__ import annotations

from typing import Any

from blip2cli.commands.score.labels import Confusion
from blip2cli.host.terminal import show_figures

MATRIX_LABELS, TABLE_LABELS = 100, 12
"""Labels of a whole matrix, in JSON and in a table."""

MOST_CONFUSED, MOST_SHOWN = 1000, 20
"""Confused pairs of labels, in JSON and in a table."""

WITHOUT = "(none)"
"""How results without a label are shown."""


def confusion_record(confusion: Confusion, digits: int) -> dict[str, Any]:
    """Figures for each label, the most confused pairs, and the matrix if there are not too many labels."""
    labels, true, given = confusion.labels, confusion.true, confusion.given
    classes = {
        label: {
            "true": true[label],
            "given": given[label],
            "precision": _per_cent(confusion.counts[label, label], given[label], digits),
            "recall": _per_cent(confusion.counts[label, label], true[label], digits),
            "f1": round(100 * confusion.f1(label, true[label], given[label]), digits),
        }
        for label in labels
    }
    confused = confusion.confused()
    listed = [{"true": each[0], "given": each[1], "count": each[2]} for each in confused[:MOST_CONFUSED]]
    matrix = None
    if len(labels) <= MATRIX_LABELS:
        columns = _columns(confusion)
        rows = [[confusion.counts[label, column] for column in columns] for label in labels]
        matrix = {"true": labels, "given": columns, "counts": rows}
    return {"classes": classes, "confused_pairs": len(confused), "most_confused": listed, "confusion_matrix": matrix}


def show_confusion(confusion: Confusion) -> None:
    """The matrix of a few labels as a table; of more the pairs that were confused most."""
    labels = confusion.labels
    print()
    if len(labels) <= TABLE_LABELS:
        columns = _columns(confusion)
        rows = [(label, [f"{confusion.counts[label, column]:,}" for column in columns]) for label in labels]
        show_figures("true labels in rows, labels given in columns", [column or WITHOUT for column in columns], rows)
        return
    confused = confusion.confused()
    title = f"{len(labels):,} labels, {len(confused):,} pairs of them confused"
    if len(confused) > MOST_SHOWN:
        title += f"; the {MOST_SHOWN} most frequent"
    pairs = [(f"{true} → {given or WITHOUT}", [f"{count:,}"]) for true, given, count in confused[:MOST_SHOWN]]
    show_figures(f"{title} (true → given)", ["rows"], pairs)


def _columns(confusion: Confusion) -> list[str | None]:
    """The labels, and None if a result has none."""
    without = any(given is None for _, given in confusion.counts)
    return [*confusion.labels, None] if without else [*confusion.labels]


def _per_cent(part: int, whole: int, digits: int) -> float | None:
    return round(100 * part / whole, digits) if whole else None
