"""The options of `blip2 score`, and the metrics that it knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from blip2cli.errors import UsageError
from blip2cli.host.files import check_apart, check_new_file
from blip2cli.settings import Arg, Opt, Options

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
