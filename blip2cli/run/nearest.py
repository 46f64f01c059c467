"""The rows of a feature file that are nearest to texts and images, and these rows as results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from blip2cli.errors import UsageError
from blip2cli.outputs.layout import Layout
from blip2cli.records import Column, Result, Row

if TYPE_CHECKING:
    import numpy as np

    from blip2cli.features.exact import Hit
    from blip2cli.features.files import Features
    from blip2cli.features.index import Index
    from blip2cli.model.retrieval import RetrievalModel
    from blip2cli.settings import ModelSettings


@dataclass(frozen=True)
class QueryHits:
    """The rows for one query, best first; `unranked` are all those that ITM could not score."""

    query: str
    hits: Sequence[Hit]
    unranked: Sequence[Hit] = ()


@dataclass(frozen=True)
class Queries:
    """What is searched for, made into vectors by a model.

    Args:
        texts: texts.
        images: images of any kind that `Objects` takes; a file is not found by itself.
    """

    texts: Sequence[str] = ()
    images: Iterable[Any] = ()

    def nearest(
        self, features: Features, model: RetrievalModel, settings: ModelSettings, most: int, index: Index | None = None
    ) -> list[QueryHits]:
        """The best `most` rows for each text, then for each image. Raises UsageError.

        Args:
            features: the rows that are searched.
            model: the model that made them.
            settings: the model's.
            most: rows for each query.
            index: an index of the features; without it the search is exact.
        """
        from blip2cli.features.exact import best_rows, without_query

        images = self._of_images(model, settings)
        vectors = [*self._of_texts(model), *(vector for _, vector in images)]
        if vectors and vectors[0].shape[-1] != features.shape[1]:
            raise UsageError(
                f"{features.path} has features of {features.shape[1]} numbers, the model of {vectors[0].shape[-1]}",
                "Use the checkpoint that made them, or compute the features again.",
            )
        wanted = most + bool(images)  # one of which may be the query itself
        hits = best_rows(features, vectors, wanted) if index is None else index.best_rows(vectors, wanted)
        found = [QueryHits(text, hits_of_text[:most]) for text, hits_of_text in zip(self.texts, hits, strict=False)]
        for (name, _), hits_of_image in zip(images, hits[len(self.texts) :], strict=True):
            found.append(QueryHits(name, without_query(features, name, hits_of_image)[:most]))
        return found

    def _of_texts(self, model: RetrievalModel) -> list[np.ndarray]:
        """fp32 [1, width] for each text. Raises UsageError."""
        if any(not text.strip() for text in self.texts):
            raise UsageError("a query is empty", "Give a text to search for.")
        projections = model.text_projections(self.texts)
        return [_array(text, vector)[None] for text, vector in zip(self.texts, projections, strict=True)]

    def _of_images(self, model: RetrievalModel, settings: ModelSettings) -> list[tuple[str, np.ndarray]]:
        """The name of each image, and its vectors, fp32 [num_query_tokens, width]. Raises UsageError."""
        from blip2cli.inputs.objects import Objects
        from blip2cli.model.batches import for_each_row
        from blip2cli.run.pipeline import load_for

        found: list[tuple[str, np.ndarray]] = []
        for batch in load_for(model, Objects(self.images).rows(), replace(settings, workers=0)):
            vectors = for_each_row(batch, model.image_projections(batch))
            found += ((row.name, _array(row.name, vector)) for row, vector in zip(batch.rows, vectors, strict=True))
        return found


def _array(query: str, vectors: object) -> np.ndarray:
    import numpy as np

    from blip2cli.model.batches import Failed

    if isinstance(vectors, Failed):
        raise UsageError(f"cannot search for {query}: {vectors.error}", "Give another query.")
    return np.asarray(vectors, np.float32)


def layout_of_hits(features: Features, metadata: Mapping[str, Any], reranked: bool = False) -> Layout:
    """The columns of the rows that are found: those of the feature file, and the query's."""
    columns = [Column("query", "string"), Column("rank", "integer"), Column("itc", "number")]
    if reranked:
        columns.append(Column("itm", "number"))
    return Layout.carrying(features.carried, tuple(columns), metadata)


def results_of_hits(features: Features, layout: Layout, found: Sequence[QueryHits]) -> Iterator[Result]:
    """The rows that are found, query by query."""
    from blip2cli.tasks.generation import short

    rows = list(dict.fromkeys(hit.row for query in found for hit in query.hits))
    records = dict(zip(rows, features.records(rows), strict=True))
    number = 0
    for query in found:
        for rank, hit in enumerate(query.hits, 1):
            record = records[hit.row]
            row = Row(number, record["image"], columns={name: record[name] for name in layout.carried})
            itm = None if hit.itm is None else short(hit.itm)
            values = (query.query, rank, short(hit.itc), itm)[: len(layout.columns)]
            yield Result(row, values, hit.error)
            number += 1
