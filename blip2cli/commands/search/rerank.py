"""Ranking what ITC has found by ITM too, which looks at the images again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from blip2cli.commands.search.exact import Hit
from blip2cli.commands.search.pictures import Pictures
from blip2cli.commands.search.results import Found
from blip2cli.model.batches import Failed, for_each_row
from blip2cli.records import Batch
from blip2cli.run.pipeline import load_for
from blip2cli.settings import Job

if TYPE_CHECKING:
    from blip2cli.model.retrieval import ReadText, RetrievalModel

Scores = dict[int, "float | Failed"]
"""The ITM scores of the rows that a text has found."""


def rerank(model: RetrievalModel, job: Job, pictures: Pictures, found: Sequence[Found]) -> list[Found]:
    """The best of what was found for each text, by ITC + ITM; behind them those that ITM cannot score, by ITC."""
    scores = _scores(model, job, pictures, found)
    return [_ranked(one, some, job.options.top_k) for one, some in zip(found, scores, strict=True)]


def _scores(model: RetrievalModel, job: Job, pictures: Pictures, found: Sequence[Found]) -> list[Scores]:
    """The scores of what each text has found. Each image is seen once, and those of a batch only are held."""
    texts: list[Any] = model.read([one.query for one in found])  # none is Failed: they have been queries
    finders: dict[int, list[int]] = {}
    for number, one in enumerate(found):
        for hit in one.hits:
            finders.setdefault(hit.row, []).append(number)
    names = [record["image"] for record in pictures.features.records(list(finders))]
    scores: list[Scores] = [{} for _ in found]
    for batch in load_for(model, pictures.rows(zip(finders, names, strict=True)), job.model):
        for number, row, score in _matched(model, batch, texts, finders):
            scores[number][row] = score
    return scores


def _matched(
    model: RetrievalModel, batch: Batch, texts: Sequence[ReadText], finders: Mapping[int, Sequence[int]]
) -> Iterator[tuple[int, int, float | Failed]]:
    """The number of a text, that of a row that it found, and their score: for all rows of the batch."""
    images = zip(batch.rows, for_each_row(batch, model.see(batch)), strict=True)
    pairs = [(number, row.index, image) for row, image in images for number in finders[row.index]]
    pairs.sort(key=itemgetter(0))  # those with one text side by side, which are padded alike
    good = [(image, texts[number]) for number, _, image in pairs if not isinstance(image, Failed)]
    scores = iter(model.itm(good))
    for number, row, image in pairs:
        yield number, row, image if isinstance(image, Failed) else next(scores)


def _ranked(found: Found, scores: Mapping[int, float | Failed], most: int) -> Found:
    hits = [_scored(hit, scores[hit.row]) for hit in found.hits]
    hits.sort(key=lambda hit: (hit.itm is None, -hit.itc - (hit.itm or 0.0)))
    return Found(found.query, hits[:most], [hit for hit in hits if hit.itm is None])


def _scored(hit: Hit, score: float | Failed) -> Hit:
    return replace(hit, error=score.error) if isinstance(score, Failed) else replace(hit, itm=score)
