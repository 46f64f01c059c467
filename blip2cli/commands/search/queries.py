"""Queries: texts and images, as vectors that are compared with those of a feature file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from blip2cli.errors import UsageError
from blip2cli.host.terminal import show_warning
from blip2cli.inputs.objects import Objects
from blip2cli.model import load_model
from blip2cli.model.batches import Failed, for_each_row
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.run.pipeline import load_for
from blip2cli.settings import Job

if TYPE_CHECKING:
    from blip2cli.model.retrieval import RetrievalModel


class Queries:
    """Makes vectors of queries with the job's model, which is loaded when it is needed."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @cached_property
    def model(self) -> RetrievalModel:
        checkpoint = find_checkpoint(self.job.model, self.job.kind)
        if checkpoint.caution:
            show_warning(checkpoint.caution)
        model: RetrievalModel = load_model(checkpoint, self.job.model.images_at_once)
        return model

    def of_texts(self, texts: Sequence[str]) -> list[np.ndarray]:
        """fp32 [1, width] for each text. Raises UsageError."""
        blank = next((text for text in texts if not text.strip()), None)
        if blank is not None:
            raise UsageError("a query is empty", "Give a text to search for.")
        return [
            _array(text, projection)[None]
            for text, projection in zip(texts, self.model.text_projections(texts), strict=True)
        ]

    def of_images(self, images: Iterable[str]) -> list[np.ndarray]:
        """fp32 [num_query_tokens, width] for each image file. Raises UsageError."""
        arrays: list[np.ndarray] = []
        settings = replace(self.job.model, workers=0)
        for batch in load_for(self.model, Objects(images).rows(), settings):
            vectors = for_each_row(batch, self.model.image_projections(batch))
            arrays += (_array(row.name, vector) for row, vector in zip(batch.rows, vectors, strict=True))
        return arrays


def _array(query: str, vectors: object) -> np.ndarray:
    if isinstance(vectors, Failed):
        raise UsageError(f"cannot search for {query}: {vectors.error}", "Give another query.")
    return np.asarray(vectors, np.float32)
