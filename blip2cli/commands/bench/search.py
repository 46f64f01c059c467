"""Speed, memory and recall of `blip2 search` on generated features.

`python -m blip2cli.commands.bench.search --rows 1000000` measures them.

A row's vectors lie around one of many random directions. The queries are texts of two kinds (random directions,
which are near no row and hardest, and directions near a row), and images, which are rows themselves.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from blip2cli.commands.bench.cost import peak_of_memory, timed
from blip2cli.commands.bench.feature_files import unit, write_features
from blip2cli.commands.bench.machine import describe_machine
from blip2cli.features.exact import Hit, best_rows
from blip2cli.features.files import Features, open_features
from blip2cli.features.index import Index

TOKENS, WIDTH = 8, 64
ROWS_A_DIRECTION = 100
TOP = 10
QUERIES = 100


def main() -> None:
    """Print what is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--suffix", choices=[".arrow", ".parquet"], default=".arrow")
    parser.add_argument("--index", action="store_true", help="build an index too, which takes much longer")
    arguments = parser.parse_args()
    print(f"{describe_machine()}\n{arguments.rows:,} rows of {TOKENS} x {WIDTH} in fp16, {arguments.suffix}")
    with tempfile.TemporaryDirectory(prefix="blip2-") as folder:
        path = Path(folder) / f"features{arguments.suffix}"
        write(path, arguments.rows)
        features = open_features(path)
        rng = np.random.default_rng(1)
        chosen = features.vectors(rng.choice(features.rows, QUERIES, replace=False).tolist())
        queries = {
            "texts anywhere": list(unit(rng.standard_normal((QUERIES, 1, WIDTH)))),
            "texts near a row": list(unit(chosen.mean(1, keepdims=True) + rng.normal(0, 0.1, (QUERIES, 1, WIDTH)))),
            "images": list(chosen[: QUERIES // 5]),
        }
        measure_exact(features, queries)
        if arguments.index:
            measure_index(features, queries, Path(folder) / "features.usearch")


def measure_exact(features: Features, queries: dict[str, list[np.ndarray]]) -> None:
    """One query at a time, and several."""
    for name, vectors in (
        ("1 text", queries["texts anywhere"][:1]),
        ("16 texts", queries["texts anywhere"][:16]),
        ("1 image", queries["images"][:1]),
    ):
        with peak_of_memory() as peak:
            seconds, _ = timed(partial(best_rows, features, vectors, TOP))
        print(f"exact, {name}: {seconds:.2f} s, {features.rows / seconds:,.0f} rows/s, {max(peak) / 1e6:.0f} MB more")


def measure_index(features: Features, queries: dict[str, list[np.ndarray]], path: Path) -> None:
    """How long the index takes to build, and how many rows of the exact search it finds."""
    seconds, index = timed(lambda: Index.of(features, path, quiet=True))
    print(f"index: built in {seconds:.0f} s, {path.stat().st_size / 1e6:.0f} MB")
    for name, vectors in queries.items():
        exact = best_rows(features, vectors, TOP)
        seconds, hits = timed(partial(index.best_rows, vectors, TOP))
        print(f"index, {name}: recall@{TOP} {recall(exact, hits):.3f}, {1000 * seconds / len(vectors):.0f} ms a query")


def recall(exact: Sequence[Sequence[Hit]], hits: Sequence[Sequence[Hit]]) -> float:
    """The share of the exact search's rows that were found."""
    common = [len({hit.row for hit in a} & {hit.row for hit in b}) for a, b in zip(exact, hits, strict=True)]
    return sum(common) / sum(map(len, exact))


def write(path: Path, rows: int) -> None:
    """Write features as `blip2 embed --features itc` does."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((max(1, rows // ROWS_A_DIRECTION), 1, WIDTH))

    def vectors(number: int) -> np.ndarray:
        around = directions[rng.integers(0, len(directions), number)]
        return unit(around + rng.standard_normal((number, TOKENS, WIDTH))).astype(np.float16)

    write_features(path, "itc", rows, vectors)


if __name__ == "__main__":
    main()
