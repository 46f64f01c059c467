"""The best rows, found by looking at all of them: matrix products, a block at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from blip2cli.features.files import Features
from blip2cli.records import RowError


@dataclass(frozen=True, slots=True)
class Hit:
    """A row that was found. `itc` is its score; `itm` is set if it was ranked again, or else `error`."""

    row: int
    itc: float
    itm: float | None = None
    error: RowError | None = None


@dataclass
class Best:
    """The best `most` rows of one query, of those offered so far; of equals the first."""

    most: int
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    scores: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))

    def offer(self, rows: np.ndarray, scores: np.ndarray) -> None:
        """Keep those that are among the best. Rows come in rising order; scores that are not finite are skipped."""
        better = np.isfinite(scores)
        if len(self.rows) == self.most:
            better &= scores > self.scores[-1]
        rows, scores = rows[better], scores[better]
        rows, scores = np.concatenate([self.rows, rows]), np.concatenate([self.scores, scores])
        order = np.argsort(-scores, kind="stable")[: self.most]
        self.rows, self.scores = rows[order], scores[order]

    def hits(self) -> list[Hit]:
        """The rows, best first."""
        return [Hit(row, score) for row, score in zip(self.rows.tolist(), self.scores.tolist(), strict=True)]


def best_rows(features: Features, queries: Sequence[np.ndarray], most: int) -> list[list[Hit]]:
    """The best rows for each query, exactly. Memory is bounded, whatever the number of rows.

    Args:
        features: the rows to search.
        queries: fp32 [vectors, width] each: one vector for a text, one for each query token of an image.
        most: rows for each query.
    """
    best = [Best(most) for _ in queries]
    for first, vectors, present in features.blocks():
        rows = first + np.flatnonzero(present)
        scores = scores_of(vectors if present.all() else vectors[present], queries)
        for best_of_query, column in zip(best, scores, strict=True):
            best_of_query.offer(rows, column)
    return [best_of_query.hits() for best_of_query in best]


def scores_of(vectors: np.ndarray, queries: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The scores [rows] of rows fp32 [rows, tokens, width] for each query.

    For a text, ITC as in transformers: the best of the row's tokens. For an image, the same of each of its vectors,
    on average, so that an image's score with itself is 1.
    """
    rows, tokens, width = vectors.shape
    flat = vectors.reshape(rows * tokens, width)
    scores: list[np.ndarray] = []
    for group in _together(queries, width):
        asked = np.concatenate(group)
        ends = np.cumsum([len(query) for query in group])[:-1]
        with np.errstate(over="ignore", invalid="ignore"):  # a file may hold any numbers
            best = (flat @ asked.T).reshape(rows, tokens, len(asked)).max(axis=1)  # [rows, vectors of the queries]
            scores += [part.mean(axis=1) for part in np.split(best, ends, axis=1)]
    return scores


def _together(queries: Sequence[np.ndarray], most: int) -> Iterator[list[np.ndarray]]:
    """The queries in lists of up to so many vectors, or of one: products take as much memory as their inputs."""
    group: list[np.ndarray] = []
    for query in queries:
        if group and sum(map(len, group)) + len(query) > most:
            yield group
            group = []
        group.append(query)
    if group:
        yield group


def without_query(features: Features, image: str, hits: Sequence[Hit]) -> list[Hit]:
    """The rows that an image has found, without the image itself; copies of it under other names stay."""
    real = os.path.realpath(image)
    names = [record["image"] for record in features.records([hit.row for hit in hits])]
    return [hit for hit, name in zip(hits, names, strict=True) if not _is_file(name, features.path.parent, real)]


def _is_file(name: str, folder: Path, real: str) -> bool:
    """Whether the name of a row leads to a file, from here or from the folder of the features."""
    return real in (os.path.realpath(name), os.path.realpath(folder / name)) if "\0" not in name else False
