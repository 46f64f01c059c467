"""Queries: texts and images, as vectors that are compared with those of a feature file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
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
    from blip2cli.commands.search.exact import Hit
    from blip2cli.commands.search.features import Features
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


def without_query(features: Features, image: str, hits: Sequence[Hit]) -> list[Hit]:
    """The rows that an image has found, without the image itself; copies of it under other names stay."""
    real = os.path.realpath(image)
    names = [record["image"] for record in features.records([hit.row for hit in hits])]
    return [hit for hit, name in zip(hits, names, strict=True) if not _is_file(name, features.path.parent, real)]


def _is_file(name: str, folder: Path, real: str) -> bool:
    """Whether the name of a row leads to a file, from here or from the folder of the features."""
    return real in (os.path.realpath(name), os.path.realpath(folder / name)) if "\0" not in name else False


def _array(query: str, vectors: object) -> np.ndarray:
    if isinstance(vectors, Failed):
        raise UsageError(f"cannot search for {query}: {vectors.error}", "Give another query.")
    return np.asarray(vectors, np.float32)
