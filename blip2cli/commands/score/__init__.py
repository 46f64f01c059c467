"""`blip2 score`: results against references, with the usual metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from blip2cli.errors import UsageError
from blip2cli.host.files import check_apart, check_new_file
from blip2cli.host.imports import load_object
from blip2cli.settings import Arg, Opt, Options

if TYPE_CHECKING:
    from blip2cli.commands.score.labels import Confusion
    from blip2cli.commands.score.matching import Matched
    from blip2cli.commands.score.predictions import PredictionKind, Predictions
    from blip2cli.commands.score.records import Figure, Pair
    from blip2cli.commands.score.references import References

METRICS: dict[str, tuple[str, ...]] = {
    "blip2cli.commands.score.answers:AnswerMetrics": (
        "vqa_accuracy",
        "vqa_accuracy_lavis",
        "exact_match",
        "normalised_match",
    ),
    "blip2cli.commands.score.captions:CaptionMetrics": (
        *("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider", "spice"),
    ),
    "blip2cli.commands.score.labels:LabelMetrics": ("accuracy", "macro_f1", "top_k_accuracy"),
}
"""Class → the metrics that it measures.

It is made from (pairs, names asked for or None).
"""

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


def _names(listed: str) -> tuple[str, ...] | None:
    return tuple(name.strip() for name in listed.split(",") if name.strip()) or None


@dataclass(frozen=True)
class ScoreSettings(Options):
    """The results and references, the metrics, and where the figures are written."""

    results: Annotated[
        tuple[str, ...], Arg("RESULTS...", "Results of caption, vqa or classify: files, or a folder of shards.")
    ]
    references: Annotated[
        tuple[str, ...],
        Opt(
            "References written by people: COCO, VQAv2, OK-VQA or GQA JSON, or a table; may be repeated.",
            ("--references", "-r"),
            "FILE",
        ),
    ] = ()
    label_column: Annotated[
        str | None, Opt("Column of the results with each image's true label, instead of --references.", metavar="NAME")
    ] = None
    column: Annotated[
        str | None, Opt("Column of the results to score. [default: answer, caption(s), text or label]", metavar="NAME")
    ] = None
    reference_column: Annotated[
        str | None, Opt("Column of the references. [default: answer(s), caption(s) or label]", metavar="NAME")
    ] = None
    metrics: Annotated[
        tuple[str, ...] | None,
        Opt("Metrics to compute (see docs/score.md). [default: all that apply]", metavar="A,B,...", parse=_names),
    ] = None
    by: Annotated[
        tuple[str, ...],
        Opt("Break the figures down by this column; may be repeated. [default: answer_type]", metavar="NAME"),
    ] = ()
    partial: Annotated[bool, Opt("Leave out references without a result.")] = False
    out: Annotated[Path | None, Opt("Write the figures to this file as JSON.", ("--out", "-o"), "FILE")] = None
    per_row: Annotated[Path | None, Opt("Write each row's own figures to this file as JSON lines.", metavar="FILE")] = (
        None
    )
    overwrite: Annotated[bool, Opt("Replace these files if they exist.")] = False

    def __post_init__(self) -> None:
        known_metrics = [name for names in METRICS.values() for name in names]
        wrong = next((name for name in self.metrics or () if name not in known_metrics), None)
        if wrong is not None:
            raise UsageError(f"unknown metric {wrong}", f"Choose from {', '.join(known_metrics)}.")
        if not self.results:
            raise UsageError("no results are given", "For example: blip2 score answers.jsonl --references FILE.")
        if not (self.references or self.label_column):
            raise UsageError("no references are given", "Add --references FILE; or for labels --label-column NAME.")
        if self.references and self.label_column:
            raise UsageError("--references cannot be used with --label-column", "Give one of them.")
        written = {"--out": self.out, "--per-row": self.per_row}
        outputs = {option: path for option, path in written.items() if path is not None}
        check_apart(outputs, (*self.results, *self.references))
        for path in outputs.values():
            check_new_file(path, self.overwrite, "scores.json")


@dataclass(frozen=True)
class Group:
    """Some pairs, and their figures by metric."""

    pairs: Sequence[Pair]
    figures: dict[str, Figure]


@dataclass(frozen=True)
class Scores:
    """The matched pairs and their figures: of all pairs together, and of groups by column
    and value."""

    matched: Matched
    every: Group
    groups: dict[str, dict[str, Group]]
    left_out: dict[str, str]
    confusion: Confusion | None = None


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
