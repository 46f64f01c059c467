"""`blip2 score`: results against references, with the usual metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from blip2cli.commands.score.options import METRICS, ScoreSettings
from blip2cli.errors import UsageError
from blip2cli.host.imports import load_object

if TYPE_CHECKING:
    from blip2cli.commands.score.labels import Confusion
    from blip2cli.commands.score.matching import Matched
    from blip2cli.commands.score.predictions import PredictionKind, Predictions
    from blip2cli.commands.score.records import Figure, Pair
    from blip2cli.commands.score.references import References
    from blip2cli.commands.score.scores import Scores

DEFAULT: dict[PredictionKind, str] = dict(zip(("answers", "captions", "labels"), METRICS, strict=True))
"""The class that measures results of a kind, if no metrics are given."""

GROUPED_BY = "answer_type"
"""The column by which figures are broken down, if the references have it and no other is
given."""


class Metrics(Protocol):
    """Measures pairs.

    `left_out` are the metrics that cannot be computed, each with the reason.
    """

    left_out: dict[str, str]

    def measure(self, pairs: Sequence[Pair]) -> dict[str, Figure]:
        """A figure for each metric."""


def score(settings: ScoreSettings) -> None:
    """Read, match, measure, and show or write the figures. Raises Blip2Error."""
    from blip2cli.commands.score.predictions import read_predictions
    from blip2cli.commands.score.report import report, warn
    from blip2cli.host.terminal import loading

    with loading("results", drawn_only=True):
        predictions = read_predictions(settings.results, settings.column, _kept_columns(settings))
        references, matched = _references(settings, predictions)
        warn(settings, predictions, references, matched)
        _complete(matched, references, settings.partial)
        scores = _measured(settings, references, matched)
    report(settings, predictions, references, scores)


def _kept_columns(settings: ScoreSettings) -> tuple[str, ...]:
    """The columns that are used beside that of the results."""
    from blip2cli.commands.score.matching import LOOKED_AT
    from blip2cli.commands.score.predictions import LABELS

    true_label = () if settings.label_column is None else (settings.label_column,)
    return (*LOOKED_AT, *settings.by, GROUPED_BY, LABELS, *true_label)


def _references(settings: ScoreSettings, predictions: Predictions) -> tuple[References, Matched]:
    """The references, in files or in a column of the results, and what they match. Raises UsageError."""
    from blip2cli.commands.score.labels import own_references
    from blip2cli.commands.score.matching import Matched, match
    from blip2cli.commands.score.references import References, read_references

    if settings.label_column is not None:
        pairs, without = own_references(predictions, settings.label_column)
        references = References([pair.reference for pair in pairs], "labels", without, 0)
        return references, Matched(f"column {settings.label_column}", pairs, (), (), ())
    kept = _kept_columns(settings)
    references = read_references(settings.references, settings.reference_column, predictions.kind, kept)
    return references, match(predictions, references)


def _complete(matched: Matched, references: References, partial: bool) -> None:
    if matched.unanswered and not partial:
        raise UsageError(
            f"{len(matched.unanswered):,} of {len(references.rows):,} references have no result, "
            f"such as {matched.unanswered[0]!r}",
            "Finish the run, or use --partial to score only the results that exist.",
        )


def _measured(settings: ScoreSettings, references: References, matched: Matched) -> Scores:
    from blip2cli.commands.score.scores import Group, Scores

    groups = _groups(settings.by, matched.pairs)
    measuring = _open(settings, references.kind, matched.pairs)

    def measured(pairs: Sequence[Pair]) -> Group:
        return Group(pairs, {name: figure for each in measuring for name, figure in each.measure(pairs).items()})

    every = measured(matched.pairs)
    parts = {column: {value: measured(pairs) for value, pairs in group.items()} for column, group in groups.items()}
    left_out = {name: why for each in measuring for name, why in each.left_out.items()}
    return Scores(matched, every, parts, left_out, _confusion(references, matched.pairs))


def _confusion(references: References, pairs: Sequence[Pair]) -> Confusion | None:
    """What was confused, where labels are scored."""
    from blip2cli.commands.score.labels import confusion_of

    return confusion_of(pairs) if references.kind == "labels" else None


def _open(settings: ScoreSettings, kind: PredictionKind, pairs: Sequence[Pair]) -> list[Metrics]:
    """The class that measures the given metrics, or those of the kind."""
    asked = settings.metrics
    chosen = [name for name, known in METRICS.items() if set(known) & set(asked or ())] if asked else [DEFAULT[kind]]
    opened: list[Metrics] = []
    for name in chosen:
        metrics_class = load_object(name)
        opened.append(metrics_class(pairs, asked))
    return opened


def _groups(columns: Sequence[str], pairs: Sequence[Pair]) -> dict[str, dict[str, list[Pair]]]:
    """The pairs by column and value.

    Raises UsageError for a column that none of them has.
    """
    groups = {column: _grouped(pairs, column) for column in columns or (GROUPED_BY,)}
    unknown = [column for column, grouped in groups.items() if list(grouped) == [""]]
    if columns and unknown:
        raise UsageError(
            f"neither the references nor the results have a column {unknown[0]}",
            "Give --by a column of the references or of the results.",
        )
    return {column: grouped for column, grouped in groups.items() if column not in unknown}


def _grouped(pairs: Sequence[Pair], column: str) -> dict[str, list[Pair]]:
    """The pairs by their values in a column of the references, or of the results; "" for
    none. Sorted."""
    grouped: dict[str, list[Pair]] = {}
    for pair in pairs:
        value: Any = pair.reference.columns.get(column, pair.prediction.columns.get(column))
        grouped.setdefault("" if value is None else str(value), []).append(pair)
    return dict(sorted(grouped.items()))
