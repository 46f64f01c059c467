"""Output of figures: a table on a terminal, else JSON; one line for each row with --per-row."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from blip2cli import __version__
from blip2cli.commands.score.confusion import confusion_record, show_confusion
from blip2cli.commands.score.matching import Matched
from blip2cli.commands.score.options import ScoreSettings
from blip2cli.commands.score.predictions import Predictions
from blip2cli.commands.score.records import Figure
from blip2cli.commands.score.references import References
from blip2cli.commands.score.scores import Group, Scores
from blip2cli.host.files import write_atomically
from blip2cli.host.terminal import show_figures, show_warning
from blip2cli.outputs.jsonl import json_line

DIGITS = 2
"""Digits after the point of a percentage, as the VQA evaluation rounds."""


def warn(settings: ScoreSettings, predictions: Predictions, references: References, matched: Matched) -> None:
    """Say on stderr what is scored in a way that a reader may not expect."""
    errors = sum(pair.prediction.error is not None for pair in matched.pairs)
    single = [len(pair.reference.texts) < 2 for pair in matched.pairs]
    alone = 0 if references.kind != "answers" or all(single) else sum(single)
    counts = (
        ("results with an error, counted as wrong", errors),
        ("results without a reference, not scored", len(matched.unknown)),
        ("references without a result, not scored", len(matched.unanswered) if settings.partial else 0),
        ("duplicate results", len(matched.repeated)),
        ("results that are lists of texts, the first of which is scored", predictions.several),
        ("rows of the results that cannot be read", predictions.unreadable),
        ("rows of the references that cannot be read", references.unreadable),
        ("references without a text, left out", references.without_text),
        ("references with one answer, for which VQA accuracy is 0", alone),
    )
    for description, count in counts:
        if count:
            show_warning(f"{description}: {count:,}")
    if references.kind == "labels":
        _warn_of_other_names(matched)


def _warn_of_other_names(matched: Matched) -> None:
    """Say if no true label is among those given: then they are likely to have other names."""
    given = {pair.prediction.text.strip() for pair in matched.pairs if pair.prediction.error is None}
    true = {text.strip() for pair in matched.pairs for text in pair.reference.texts}
    if given and given.isdisjoint(true):
        show_warning(f"no true label is among the labels given: {min(true)!r} is not, and {min(given)!r} is")


def report(settings: ScoreSettings, predictions: Predictions, references: References, scores: Scores) -> None:
    """Write the files of the settings, and show the figures. Raises OutputError."""
    for name, reason in scores.left_out.items():
        show_warning(f"{name} is left out: {reason}")
    text = json.dumps(summary(settings, predictions, references, scores), indent=2, ensure_ascii=False)
    if settings.per_row is not None:
        write_atomically(settings.per_row, b"".join(map(json_line, per_row(scores))))
    if settings.out is not None:
        write_atomically(settings.out, text.encode("utf-8", "backslashreplace") + b"\n")
    if sys.stdout.isatty():
        _show(settings, scores)
    elif settings.out is None:
        print(text.encode("utf-8", "backslashreplace").decode())


def summary(
    settings: ScoreSettings, predictions: Predictions, references: References, scores: Scores
) -> dict[str, Any]:
    """All figures and counts, as plain JSON values."""
    matched = scores.matched
    return {
        "results": list(settings.results),
        "references": list(settings.references),
        "column": predictions.column,
        "matched_by": matched.way,
        "scored": len(matched.pairs),
        "errors": sum(pair.prediction.error is not None for pair in matched.pairs),
        "references_without_result": len(matched.unanswered),
        "results_without_reference": len(matched.unknown),
        "repeated_results": len(matched.repeated),
        "lists_of_texts": predictions.several,
        "unreadable_rows": predictions.unreadable + references.unreadable,
        "references_without_text": references.without_text,
        "metrics": _rounded(scores.every.figures),
        "by": {
            column: {value: {"scored": len(group.pairs), **_rounded(group.figures)} for value, group in groups.items()}
            for column, groups in scores.groups.items()
        },
        "left_out": scores.left_out,
        **({} if scores.confusion is None else confusion_record(scores.confusion, DIGITS)),
        "version": __version__,
    }


def per_row(scores: Scores) -> Iterator[dict[str, Any]]:
    """A record for each pair: its key, the texts, and its own figures."""
    for at, pair in enumerate(scores.every.pairs):
        columns = {**pair.prediction.columns, **pair.reference.columns}
        figures = {name: _round(figure.rows[at]) for name, figure in scores.every.figures.items()}
        texts = {"text": pair.prediction.text, "references": list(pair.reference.texts)}
        yield {"key": pair.key, **columns, **texts, **figures, "error": pair.prediction.error}


def _rounded(figures: Mapping[str, Figure]) -> dict[str, float | None]:
    return {name: _round(figure.overall) for name, figure in figures.items()}


def _round(value: float) -> float | None:
    return round(value, DIGITS) if math.isfinite(value) else None


def _show(settings: ScoreSettings, scores: Scores) -> None:
    metrics = list(scores.every.figures)
    rows = [("all", _cells(scores.every, metrics))]
    for groups in scores.groups.values():
        rows += [(value or "(none)", _cells(group, metrics)) for value, group in groups.items()]
    against = ", ".join(settings.references) or "their own labels"
    title = f"{', '.join(settings.results)} against {against}, by {scores.matched.way}; per cent"
    show_figures(title, ["scored", *metrics], rows)
    if scores.confusion is not None:
        show_confusion(scores.confusion)


def _cells(group: Group, metrics: Sequence[str]) -> list[str]:
    values = [group.figures[name].overall if name in group.figures else math.nan for name in metrics]
    return [f"{len(group.pairs):,}", *("–" if math.isnan(value) else f"{value:.{DIGITS}f}" for value in values)]
