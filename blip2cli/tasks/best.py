"""The best of several captions: those that were written, and those that a manifest brings, ranked by how well they
match the image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from blip2cli.inputs.cells import texts_in
from blip2cli.records import Column, Result, Row, RowError
from blip2cli.tasks.scores import score_columns

if TYPE_CHECKING:
    from blip2cli.host.stopwatch import Stopwatch
    from blip2cli.model.retrieval import Pair, RetrievalModel
    from blip2cli.tasks.generation import WrittenRow, WrittenText

WRITTEN = "model"
"""The source of a caption that the model wrote; of others it is their column."""

ROWS = 64
"""The most rows that are ranked together; there are fewer if they have enough captions for a batch."""


@dataclass(slots=True)
class Candidate:
    """A caption that competes.

    Args:
        text: the caption, without what --prefix and --suffix put around it.
        source: WRITTEN, or the column that it is from.
        written: what is known of one that was written.
        score: how well it matches the image, rounded as it is written.
    """

    text: str
    source: str
    written: WrittenText | None = None
    score: float = 0.0


@dataclass(slots=True)
class _Contest:
    """An output row and its candidates, no two of which are equal; `entered` counts the captions before that."""

    row: WrittenRow
    candidates: list[Candidate] = field(default_factory=list)
    entered: int = 0
    error: RowError | None = None


@dataclass(frozen=True)
class Ranking:
    """Ranks captions, and keeps the best.

    Args:
        by: the score that they are ranked by.
        several: whether a row has a list of captions; if not, it has the best one.
        keep: how many are kept; None for all.
        threshold: the lowest score of those that are kept.
        also_columns: columns of the input whose captions compete too.
        with_scores: whether there are columns for the probabilities of what was written.
        around: a caption as it is shown, from its row and its text.
    """

    by: Literal["itm", "itc"]
    several: bool
    keep: int | None
    threshold: float | None
    also_columns: tuple[str, ...]
    with_scores: bool
    around: Callable[[Row, str], str]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of a row: captions, where they are from, their scores, and how many were dropped."""
        if self.several:
            captions, sources = Column("captions", "strings", best_first=True), Column("sources", "strings")
            score = Column(f"{self.by}_scores", "numbers")
        else:
            captions, sources = Column("caption", "string"), Column("source", "string")
            score = Column(self.by, "number")
        own = (captions, sources) if self.also_columns else (captions,)
        probabilities = score_columns(self.several) if self.with_scores else ()
        return (*own, score, Column("dropped", "integer"), *probabilities)

    def results(self, rows: Iterable[WrittenRow], ranker: RetrievalModel, watch: Stopwatch) -> Iterator[Result]:
        """The rows with their best captions, in the same order."""
        for contests in self._groups(rows, ranker):
            with watch.phase("ranking"):
                self._score(ranker, contests)
            yield from map(self._result, contests)

    def _groups(self, rows: Iterable[WrittenRow], ranker: RetrievalModel) -> Iterator[list[_Contest]]:
        """Rows with enough candidates for a batch of the ranker."""
        group: list[_Contest] = []
        pairs = 0
        for row in rows:
            contest = self._contest(row)
            group.append(contest)
            pairs += len(contest.candidates)
            if pairs >= ranker.batch_size or len(group) == ROWS:
                yield group
                group, pairs = [], 0
        if group:
            yield group

    def _contest(self, row: WrittenRow) -> _Contest:
        """A row with its candidates; equal texts are one, and those without words are none."""
        contest = _Contest(row, error=row.error)
        if row.texts is None:
            return contest
        entered = [Candidate(written.text.strip(), WRITTEN, written) for written in row.texts]
        entered += [candidate for candidate in self._of_manifest(row.row) if candidate.text]
        contest.entered = len(entered)
        different: dict[str, Candidate] = {}
        for candidate in entered:
            if candidate.text:
                different.setdefault(candidate.text, candidate)
        contest.candidates = list(different.values())
        return contest

    def _of_manifest(self, row: Row) -> Iterator[Candidate]:
        """The captions in the row's cells, each a text or a list of texts, as was checked before."""
        for name in self.also_columns:
            for text in texts_in(name, row.columns.get(name)):
                yield Candidate(text.strip(), name)

    def _score(self, ranker: RetrievalModel, contests: list[_Contest]) -> None:
        """Give each candidate its score, and rows their errors."""
        from blip2cli.model.batches import Failed
        from blip2cli.tasks.generation import short

        scored, pairs = self._pairs(ranker, contests)
        scores = ranker.itm(pairs) if self.by == "itm" else ranker.itc_of_pairs(pairs)
        for (contest, candidate), score in zip(scored, scores, strict=True):
            if isinstance(score, Failed):
                contest.error = score.error
            else:
                candidate.score = short(score)

    def _pairs(
        self, ranker: RetrievalModel, contests: list[_Contest]
    ) -> tuple[list[tuple[_Contest, Candidate]], list[Pair]]:
        """The candidates that the ranker can read, and the same as its pairs.

        A text that is too long for it is dropped, unless there is no other; any other failure is an error of the row.
        """
        from blip2cli.model.batches import Failed

        entries = [(contest, candidate) for contest in contests for candidate in contest.candidates]
        read_texts = ranker.read([candidate.text for _, candidate in entries])
        scored, pairs = [], []
        for (contest, candidate), read in zip(entries, read_texts, strict=True):
            if isinstance(read, Failed):
                contest.candidates.remove(candidate)
                if not contest.candidates or read.error.kind != "text-too-long":
                    contest.error = contest.error or read.error
            else:
                assert contest.row.seen is not None, "a row with texts has an image"
                scored.append((contest, candidate))
                pairs.append((contest.row.seen, read))
        return scored, pairs

    def _result(self, contest: _Contest) -> Result:
        row = contest.row
        if contest.error is not None or row.texts is None:
            nothing = (None,) * len(self.columns)
            return Result(row.row, (*row.prompt.before, *nothing), contest.error, row.last)
        kept = self._kept(contest.candidates)
        values = (*row.prompt.before, *self._values(row.row, kept, contest.entered - len(kept)))
        return Result(row.row, values, None, row.last, empty=not contest.candidates)

    def _values(self, row: Row, kept: list[Candidate], dropped: int) -> Iterator[Any]:
        """The values of the columns."""
        from blip2cli.tasks.generation import score_values

        yield self._shown([self.around(row, candidate.text) for candidate in kept])
        if self.also_columns:
            yield self._shown([candidate.source for candidate in kept])
        yield self._shown([candidate.score for candidate in kept])
        yield dropped
        if self.with_scores:
            written = [candidate.written for candidate in kept if candidate.written is not None]
            yield from map(self._shown, score_values(written, True))

    def _shown(self, values: list[Any]) -> Any:
        """The values of a row's captions, or if it has one caption, its value; None if it has none."""
        return values if self.several else next(iter(values), None)

    def _kept(self, candidates: list[Candidate]) -> list[Candidate]:
        """The best candidates that reach the threshold, best first; the earlier of two with one score."""
        good = [one for one in candidates if self.threshold is None or one.score >= self.threshold]
        good.sort(key=lambda candidate: -candidate.score)
        return good[: 1 if not self.several else self.keep]
