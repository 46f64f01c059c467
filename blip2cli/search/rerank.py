"""Ranking what ITC has found by ITM too, which looks at the images again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from blip2cli.images import Reading
from blip2cli.job import Job
from blip2cli.loader import Loading, load
from blip2cli.model.batches import Failed
from blip2cli.records import Row
from blip2cli.search.exact import Hit
from blip2cli.search.features import Features
from blip2cli.search.results import Found, places_of

if TYPE_CHECKING:
    from blip2cli.model.retrieval import RetrievalModel


def rerank(model: RetrievalModel, features: Features, job: Job, found: Found, most: int) -> Found:
    """The best of what was found for a text, by ITC + ITM; behind them those that ITM cannot score, by ITC."""
    text = model.read([found.query])[0]
    assert not isinstance(text, Failed), "it has been a query"
    reading = Reading(model.checkpoint.images.side, job.model.exact_pixels)
    loading = Loading(model.batch_size, job.model.workers, image_timeout=job.model.image_timeout)
    hits = iter(found.hits)
    ranked: list[Hit] = []
    for batch in load(_rows(features, job, found.hits), reading, loading):
        seen = model.see(batch)
        images = [
            Failed(error or "") if at is None else seen[at]
            for at, error in zip(batch.image_of, batch.errors, strict=True)
        ]
        good = [image for image in images if not isinstance(image, Failed)]
        scores = iter(model.itm([(image, text) for image in good]))
        for image in images:
            score = image if isinstance(image, Failed) else next(scores)
            hit = next(hits)
            ranked.append(_scored(hit, score))
    ranked.sort(key=lambda hit: (hit.itm is None, -hit.itc - (hit.itm or 0.0)))
    return Found(found.query, ranked[:most], sum(hit.itm is None for hit in ranked))


def _scored(hit: Hit, score: float | Failed) -> Hit:
    if isinstance(score, Failed):
        return replace(hit, error=score.error)
    if not math.isfinite(score):
        return replace(hit, error="failed: the ITM score is not finite")
    return replace(hit, itm=score)


def _rows(features: Features, job: Job, hits: Sequence[Hit]) -> Iterator[Row]:
    """The rows that were found, with their images."""
    places, records = places_of(features, job), features.records([hit.row for hit in hits])
    return (
        replace(places.row(record, hit.row), index=at)
        for at, (record, hit) in enumerate(zip(records, hits, strict=True))
    )
