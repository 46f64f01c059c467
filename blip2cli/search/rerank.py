"""Ranking what ITC has found by ITM too, which looks at the images again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from blip2cli.images import Reading
from blip2cli.job import Job
from blip2cli.loader import Loading, load
from blip2cli.model.batches import Failed, for_each_row
from blip2cli.search.exact import Hit
from blip2cli.search.pictures import Pictures
from blip2cli.search.results import Found

if TYPE_CHECKING:
    from blip2cli.model.retrieval import RetrievalModel

Scores = dict[int, "float | Failed"]
"""The ITM scores of the rows that a text has found."""


def rerank(model: RetrievalModel, job: Job, pictures: Pictures, found: Sequence[Found]) -> list[Found]:
    """The best of what was found for each text, by ITC + ITM; behind them those that ITM cannot score, by ITC."""
    scores = _scores(model, job, pictures, found)
    return [_ranked(one, some, job.options.top_k) for one, some in zip(found, scores, strict=True)]


def _scores(model: RetrievalModel, job: Job, pictures: Pictures, found: Sequence[Found]) -> list[Scores]:
    """The scores of what each text has found. Each image is seen once, and no more than a batch of them is held."""
    texts: list[Any] = model.read([one.query for one in found])  # none is Failed: they have been queries
    finders: dict[int, list[int]] = {}
    for number, one in enumerate(found):
        for hit in one.hits:
            finders.setdefault(hit.row, []).append(number)
    names = [record["image"] for record in pictures.features.records(list(finders))]
    reading = Reading(model.checkpoint.images.side, job.model.exact_pixels)
    loading = Loading(model.batch_size, job.model.workers, image_timeout=job.model.image_timeout)
    scores: list[Scores] = [{} for _ in found]
    for batch in load(pictures.rows(zip(finders, names, strict=True)), reading, loading):
        images = for_each_row(batch, model.see(batch))
        pairs = [
            (image, number, row.index)
            for row, image in zip(batch.rows, images, strict=True)
            for number in finders[row.index]
        ]
        pairs.sort(key=itemgetter(1))  # those with one text side by side, which are padded alike
        good = [(image, texts[number]) for image, number, _ in pairs if not isinstance(image, Failed)]
        matched = iter(model.itm(good))
        for image, number, row in pairs:
            scores[number][row] = image if isinstance(image, Failed) else next(matched)
    return scores


def _ranked(found: Found, scores: Mapping[int, float | Failed], most: int) -> Found:
    hits = [_scored(hit, scores[hit.row]) for hit in found.hits]
    hits.sort(key=lambda hit: (hit.itm is None, -hit.itc - (hit.itm or 0.0)))
    return Found(found.query, hits[:most], [hit for hit in hits if hit.itm is None])


def _scored(hit: Hit, score: float | Failed) -> Hit:
    return replace(hit, error=score.error) if isinstance(score, Failed) else replace(hit, itm=score)
