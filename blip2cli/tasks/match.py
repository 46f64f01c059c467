"""Matching: how well images and texts match, by ITC and ITM; and filtering of caption sets, as in CapFilt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from blip2cli.errors import UsageError
from blip2cli.records import Batch, Column, Result, Row, RowError
from blip2cli.settings import Job, Kind, Opt, TaskOptions
from blip2cli.settings.numbers import check_score
from blip2cli.tasks import Needs, Task
from blip2cli.tasks.explain import Explain, ExplainWords, MapColumns, error_of
from blip2cli.tasks.template import MissingColumn, Template, empty_column, texts_in_file

if TYPE_CHECKING:
    from blip2cli.host.stopwatch import Stopwatch
    from blip2cli.model.batches import Failed
    from blip2cli.model.checkpoint.record import Checkpoint
    from blip2cli.model.explain import Explanation
    from blip2cli.model.retrieval import ReadText, RetrievalModel

TEXT_COLUMNS = ("text", "caption")
"""Columns that may hold a row's text if --text-column is not given."""

PAIRS = 1024
"""The largest number of pairs scored together; ITM works on as many of them at once as on images."""


@dataclass(frozen=True)
class MatchOptions(TaskOptions):
    """The options of `blip2 match` alone."""

    panel = "Matching"
    text: Annotated[
        tuple[str, ...],
        Opt("Text for every image; may be repeated. {NAME} stands for a column.", ("--text", "-t"), "TEXT"),
    ] = ()
    texts: Annotated[Path | None, Opt("Text file with one text on each line, all for every image.", metavar="FILE")] = (
        None
    )
    text_column: Annotated[
        str | None, Opt("Manifest column with the row's text. [default: text, else caption]", metavar="NAME")
    ] = None
    scores: Annotated[
        Literal["both", "itc", "itm"], Opt("ITC is fast. ITM is more exact, and runs the Q-Former for every pair.")
    ] = "both"
    threshold: Annotated[
        float | None, Opt("Write only rows that score at least this, and rows with errors.", metavar="X")
    ] = None
    threshold_on: Annotated[
        Literal["itm", "itc"] | None, Opt("Score that --threshold applies to. [default: itm, if it is computed]")
    ] = None

    explain: Explain = False
    explain_words: ExplainWords = False

    @property
    def kind(self) -> Kind:
        """The kind of checkpoint that compares images with texts."""
        return "retrieval"

    @property
    def computed(self) -> tuple[str, ...]:
        """The scores that are written."""
        return ("itc", "itm") if self.scores == "both" else (self.scores,)

    @property
    def decisive(self) -> str:
        """The score that the threshold applies to."""
        return self.threshold_on or self.computed[-1]

    def validate(self) -> None:
        if self.text_column is not None and (self.text or self.texts is not None):
            raise UsageError("--text-column cannot be used with --text or --texts", "Give one of them.")
        if any(not text.strip() for text in self.text):
            raise UsageError("--text is empty", "Give a text, for example --text 'a red circle'.")
        if self.threshold_on is not None and self.threshold is None:
            raise UsageError("--threshold-on needs --threshold", "For example: --threshold 0.5.")
        if self.decisive not in self.computed:
            raise UsageError(f"--threshold-on {self.decisive} needs that score", "Leave out --scores, or change it.")
        if (self.explain or self.explain_words) and "itm" not in self.computed:
            raise UsageError("--explain needs ITM", "Leave out --scores: maps show what ITM looked at.")
        if self.threshold is not None:
            check_score("--threshold", self.threshold, self.decisive)


@dataclass(slots=True)
class _Pair:
    """An unfinished output row: an image and a text, or what is wrong with them."""

    row: Row
    image: Any
    text: str | None
    error: RowError | None
    last: bool
    scores: dict[str, float] = field(default_factory=dict)
    explanation: Explanation | Failed | None = None


class MatchTask(Task):
    """The match task; columns `text`, `itc` and `itm`, an output row for every text of an image."""

    several_rows = True

    def __init__(self, job: Job) -> None:
        self.options = job.options_as(MatchOptions)
        if self.options.threshold is not None and job.output.retry_errors:
            raise UsageError(
                "--retry-errors cannot be used with --threshold",
                "Run without --threshold, and filter the rows by score afterwards.",
            )
        self.maps = MapColumns.of(job, self.options.explain, self.options.explain_words)
        self.explains = self.maps.explain
        typed = self.options.text + (texts_in_file("--texts", self.options.texts) if self.options.texts else ())
        self.texts = [Template(text, "--text") for text in typed]
        text_columns = (self.options.text_column,) if self.options.text_column else TEXT_COLUMNS
        self.needs = Needs(
            text_columns=() if self.texts else text_columns,
            no_text=("no text is given", "Add --text 'a red circle', or give --texts FILE."),
        )
        self.text_column: str | None = None
        self.rows_each = max(len(self.texts), 1)
        self.own_text = None if self.texts else "text"

    def check_columns(self, names: Sequence[str], text_column: str | None) -> None:
        self.text_column = text_column
        for template in self.texts:
            template.check(names)

    def columns(self, checkpoint: Checkpoint) -> tuple[Column, ...]:
        scores = (Column(name, "number") for name in self.options.computed)
        return (Column("text", "string"), *scores, *self.maps.columns(checkpoint))

    def results(self, model: RetrievalModel, batches: Iterator[Batch], watch: Stopwatch) -> Iterator[Result]:
        for batch in watch.timed("reading", batches):
            with watch.phase("encoding"):
                images = model.see(batch)
            for pairs in _some(self._pairs(batch, images), PAIRS):
                with watch.phase("encoding"):
                    self._score(model, pairs)
                yield from map(self._result, pairs)

    def _pairs(self, batch: Batch, images: Sequence[Any]) -> Iterator[_Pair]:
        """A pair for every text of every row."""
        from blip2cli.model.batches import Failed, for_each_row

        for row, image in zip(batch.rows, for_each_row(batch, images), strict=True):
            failure = image.error if isinstance(image, Failed) else None
            texts = self._texts(row)
            for number, (text, fault) in enumerate(texts, 1):
                yield _Pair(row, image, text, failure or fault, number == len(texts))

    def _texts(self, row: Row) -> list[tuple[str | None, RowError | None]]:
        """The row's texts, each with what is wrong with it."""
        if not self.texts:
            missing = None if row.text and row.text.strip() else empty_column(self.text_column, row)
            return [(row.text, missing)]
        return [_filled(template, row) for template in self.texts]

    def _score(self, model: RetrievalModel, pairs: Sequence[_Pair]) -> None:
        """Give each pair its scores or its error; pairs below a threshold on ITC get no ITM."""
        good = self._read(model, [pair for pair in pairs if pair.error is None])
        if "itc" in self.options.computed:
            _note("itc", good, model.itc_of_pairs([(pair.image, text) for pair, text in good]))
        if "itm" in self.options.computed:
            to_score = [(pair, text) for pair, text in good if not self._left_out(pair)]
            _note("itm", to_score, model.itm([(pair.image, text) for pair, text in to_score]))
        if self.explains:
            self._explain(model, good)

    def _explain(self, model: RetrievalModel, pairs: Sequence[tuple[_Pair, ReadText]]) -> None:
        """Give each pair that is written its map."""
        for pair, text in pairs:
            if pair.error is None and not self._left_out(pair):
                pair.explanation = model.explain(pair.image, text, self.options.explain_words)
                pair.error = error_of(pair.explanation)

    def _read(self, model: RetrievalModel, pairs: Sequence[_Pair]) -> list[tuple[_Pair, ReadText]]:
        """The pairs with their tokenized texts, without those that the model cannot read."""
        from blip2cli.model.batches import Failed

        texts = list(dict.fromkeys(pair.text or "" for pair in pairs))
        read_texts = dict(zip(texts, model.read(texts), strict=True))
        good = []
        for pair in pairs:
            read = read_texts[pair.text or ""]
            if isinstance(read, Failed):
                pair.error = read.error
            else:
                good.append((pair, read))
        return good

    def _left_out(self, pair: _Pair) -> bool:
        """Whether the score of the threshold exists, and is below it."""
        score = pair.scores.get(self.options.decisive)
        return self.options.threshold is not None and score is not None and score < self.options.threshold

    def _result(self, pair: _Pair) -> Result:
        scores = [None if pair.error else pair.scores.get(name) for name in self.options.computed]
        left_out = pair.error is None and self._left_out(pair)
        values = (pair.text, *scores, *self.maps.values(pair.explanation))
        return Result(pair.row, values, pair.error, pair.last, left_out)


def _note(name: str, pairs: Sequence[tuple[_Pair, ReadText]], scores: Sequence[float | Failed]) -> None:
    """Store the scores, rounded as they are written, or the errors instead."""
    from blip2cli.tasks.generation import short

    for (pair, _), score in zip(pairs, scores, strict=True):
        if isinstance(score, float):
            pair.scores[name] = short(score)
        else:
            pair.error = score.error


def _filled(template: Template, row: Row) -> tuple[str | None, RowError | None]:
    """The text for a row, and what is wrong with it."""
    try:
        return template.fill(row), None
    except MissingColumn as missing:
        return None, missing.error


def _some(pairs: Iterator[_Pair], most: int) -> Iterator[list[_Pair]]:
    """The pairs in lists."""
    while group := list(islice(pairs, most)):
        yield group
