"""Ranks the results of ITC again with ITM, which reads their images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from blip2cli.commands.results.pictures import Pictures
from blip2cli.commands.search.options import SearchOptions
from blip2cli.features.exact import Hit
from blip2cli.model.batches import Failed, for_each_row
from blip2cli.records import Batch
from blip2cli.run.nearest import QueryHits
from blip2cli.run.pipeline import load_for
from blip2cli.settings import Job

if TYPE_CHECKING:
    from blip2cli.model.retrieval import ReadText, RetrievalModel

MatchScores = dict[int, "float | Failed"]
"""The ITM scores of the rows that a text has found."""


def rerank(model: RetrievalModel, job: Job, pictures: Pictures, results: Sequence[QueryHits]) -> list[QueryHits]:
    """The best results for each text, by ITC + ITM; after them those that ITM cannot
    score, by ITC."""
    scores = _scores(model, job, pictures, results)
    most = job.options_as(SearchOptions).top_k
    return [_ranked(result, scores_of_query, most) for result, scores_of_query in zip(results, scores, strict=True)]


def _scores(model: RetrievalModel, job: Job, pictures: Pictures, results: Sequence[QueryHits]) -> list[MatchScores]:
    """The scores of the results of each text.

    Each image is read once, and only those of one batch are held.
    """
    texts: list[Any] = model.read([result.query for result in results])  # none is Failed: they were queries before
    finders: dict[int, list[int]] = {}
    for number, result in enumerate(results):
        for hit in result.hits:
            finders.setdefault(hit.row, []).append(number)
    names = [record["image"] for record in pictures.features.records(list(finders))]
    scores: list[MatchScores] = [{} for _ in results]
    for batch in load_for(model, pictures.rows(zip(finders, names, strict=True)), job.model):
        for number, row, score in _matched(model, batch, texts, finders):
            scores[number][row] = score
    return scores


def _matched(
    model: RetrievalModel, batch: Batch, texts: Sequence[ReadText], finders: Mapping[int, Sequence[int]]
) -> Iterator[tuple[int, int, float | Failed]]:
    """The number of a text, that of a row that it found, and their score: for all rows of
    the batch."""
    images = zip(batch.rows, for_each_row(batch, model.see(batch)), strict=True)
    pairs = [(number, row.index, image) for row, image in images for number in finders[row.index]]
    pairs.sort(key=itemgetter(0))  # pairs with the same text together: they are padded alike
    good = [(image, texts[number]) for number, _, image in pairs if not isinstance(image, Failed)]
    scores = iter(model.itm(good))
    for number, row, image in pairs:
        yield number, row, image if isinstance(image, Failed) else next(scores)


def _ranked(result: QueryHits, scores: Mapping[int, float | Failed], most: int) -> QueryHits:
    hits = [_scored(hit, scores[hit.row]) for hit in result.hits]
    hits.sort(key=lambda hit: (hit.itm is None, -hit.itc - (hit.itm or 0.0)))
    return QueryHits(result.query, hits[:most], [hit for hit in hits if hit.itm is None])


def _scored(hit: Hit, score: float | Failed) -> Hit:
    return replace(hit, error=score.error) if isinstance(score, Failed) else replace(hit, itm=score)
