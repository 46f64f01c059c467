"""An index of a feature file, for too many rows to compare one by one: usearch's HNSW graph.

Each query token of an image is a vector under the number of the image's row. The rows that the graph finds are
scored again with the features themselves, so scores are those of the exact search; rows may be missed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blip2cli.errors import OutputError, UsageError
from blip2cli.features.exact import Best, Hit, scores_of
from blip2cli.features.files import Features
from blip2cli.host.files import (
    ROOM_HINT,
    cannot_write,
    check_writable,
    new_temporary,
    publish,
    real_path,
    write_atomically,
)
from blip2cli.host.terminal import Progress

STORED = "f16"
"""Precision of the vectors in the index."""

WIDER = 4
"""Vectors that are looked for, by rows that are wanted and an image's query tokens: a row may be found by several."""

FEWEST, MOST = 4096, 1 << 16
"""Vectors that are looked for at least, and at most. Texts do not lie among images, where few would do: docs/search.md
has what is found by how many."""

SCORED = 64
"""Rows that are scored by the features themselves, beyond WIDER times those that are wanted."""

IDENTITY = ("rows", "shape", "model", "revision", "sample")
"""What the file next to an index says of its features."""

SAMPLE = 3
"""Rows whose vectors show whether the features are those that were indexed."""


@dataclass(frozen=True)
class Index:
    """An index that belongs to a feature file."""

    features: Features
    graph: Any

    @staticmethod
    def of(features: Features, path: Path, quiet: bool = False, most: int = 1) -> Index:
        """The index in a file, which is built where there is none, for searches of up to so many rows.

        Raises UsageError where it is of other features, cannot find so many, or the library is missing; OutputError
        where it cannot be written.
        """
        room = MOST // features.shape[0]
        if most > room:
            raise UsageError(f"--index finds {room:,} rows at most, not {most:,}", "Search without it, which is exact.")
        try:
            from usearch.index import Index as Graph
        except ImportError:
            raise UsageError(
                "--index needs the package usearch", "Install it: pip install 'blip2cli[search]'"
            ) from None
        said = _said(path)
        if said is None and (path.exists() or _beside(path).exists()):
            existing = path if path.exists() else _beside(path)
            raise UsageError(f"{existing} exists, and is not an index of blip2", "Choose another file.")
        if not path.exists():
            _build(features, path, quiet)
        elif said != _identity(features):
            raise UsageError(f"{path} is not an index of {features.path}", "Choose another file.")
        try:
            graph = Graph.restore(str(path), view=True)
        except (RuntimeError, ValueError, OSError):
            graph = None
        if graph is None or graph.ndim != features.shape[1]:
            raise UsageError(f"{path} is damaged", f"Remove it: rm {path}")
        return Index(features, graph)

    def best_rows(self, queries: Sequence[np.ndarray], most: int) -> list[list[Hit]]:
        """The best rows for each query, as `exact.best_rows` finds them, except for those that the graph misses."""
        return [self._best(query, most) for query in queries]

    def _best(self, query: np.ndarray, most: int) -> list[Hit]:
        count = min(max(FEWEST, most * WIDER * self.features.shape[0] // len(query)), MOST, len(self.graph))
        self.graph.expansion_search = count
        estimates: dict[int, float] = {}
        for vector in query:
            matches = self.graph.search(vector, count)
            rows, nearest = np.unique(matches.keys, return_index=True)  # the nearest come first
            if len(rows) and rows[-1] >= self.features.rows:
                raise UsageError("the index names rows that its features do not have", "Remove it; it is damaged.")
            for row, distance in zip(rows.tolist(), matches.distances[nearest].tolist(), strict=True):
                estimates[row] = estimates.get(row, 0.0) + 1 - distance
        likely = sorted(estimates, key=lambda row: -estimates[row])[: most * WIDER + SCORED]
        best = Best(most)
        if likely:
            best.offer(np.array(sorted(likely)), scores_of(self.features.vectors(sorted(likely)), [query])[0])
        return best.hits()


def _build(features: Features, path: Path, quiet: bool) -> None:
    from usearch.index import Index as Graph

    check_writable(path)
    real = real_path(path)
    try:
        temporary = new_temporary(real)
    except OSError as error:
        raise cannot_write(path, error) from None
    tokens, width = features.shape
    graph = Graph(ndim=width, metric="ip", dtype=STORED, multi=True)
    progress = Progress(quiet)
    progress.begin(features.rows, 0)
    try:
        for first, vectors, present in features.blocks():
            rows = first + np.flatnonzero(present)
            graph.add(np.repeat(rows, tokens), vectors[present].reshape(-1, width))
            progress.advance(len(vectors), 0)
        graph.save(str(temporary))
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        write_atomically(_beside(path), json.dumps(_identity(features), indent=2).encode() + b"\n")
        publish(temporary, real)  # last, so that an index never exists without it
    except (OSError, RuntimeError) as error:  # the latter is usearch's
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from None
        raise OutputError(f"cannot write {path}: {error}", ROOM_HINT) from None
    finally:
        progress.close()


def _beside(path: Path) -> Path:
    """The file next to an index that describes its features."""
    return path.with_name(path.name + ".json")


def _said(path: Path) -> dict[str, Any] | None:
    """The description of an index; None if there is none."""
    try:
        said = json.loads(_beside(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) and said.keys() == set(IDENTITY) else None


def _identity(features: Features) -> dict[str, Any]:
    """What must be equal for an index and its features: number, shape, model, and some of the vectors."""
    rows = sorted({features.rows * at // SAMPLE for at in range(SAMPLE)} | {features.rows - 1}) if features.rows else []
    sample = features.vectors(rows).astype(np.float16) if rows else np.empty(0)
    digest = hashlib.sha256(sample.tobytes()).hexdigest()
    model, revision = features.settings.get("model"), features.settings.get("revision")
    return dict(zip(IDENTITY, (features.rows, list(features.shape), model, revision, digest), strict=True))
