"""Speed, memory and recall of `blip2 search` on generated features.

`python -m blip2cli.commands.bench.search --rows 1000000` measures them.

A row's vectors lie around one of many random directions. The queries are texts of two kinds (random directions,
which are near no row and hardest, and directions near a row), and images, which are rows themselves.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from blip2cli.commands.bench.machine import describe_machine
from blip2cli.features.exact import Hit, best_rows
from blip2cli.features.files import Features, open_features
from blip2cli.features.index import Index

T = TypeVar("T")

TOKENS, WIDTH = 8, 64
ROWS_A_DIRECTION = 100
TOP = 10
QUERIES = 100
WRITTEN_AT_ONCE = 8192


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
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    directions = rng.standard_normal((max(1, rows // ROWS_A_DIRECTION), 1, WIDTH))
    kind = pa.fixed_shape_tensor(pa.float16(), (TOKENS, WIDTH))
    said = {b"blip2": json.dumps({"features": "itc", "model": "made up"}).encode()}
    schema = pa.schema([("image", pa.string()), ("features", kind), ("error", pa.string())], metadata=said)
    with pa.ipc.new_file(path, schema) if path.suffix == ".arrow" else pq.ParquetWriter(path, schema) as writer:
        for first in range(0, rows, WRITTEN_AT_ONCE):
            number = min(WRITTEN_AT_ONCE, rows - first)
            around = directions[rng.integers(0, len(directions), number)]
            vectors = unit(around + rng.standard_normal((number, TOKENS, WIDTH))).astype(np.float16)
            storage = pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), type=kind.storage_type)
            names = pa.array([f"{at}.jpg" for at in range(first, first + number)])
            columns = [names, pa.ExtensionArray.from_storage(kind, storage), pa.nulls(number, pa.string())]
            writer.write_table(pa.table(columns, schema=schema))


def unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors in fp32, each of length 1."""
    normalised: np.ndarray = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return normalised


def timed(function: Callable[[], T]) -> tuple[float, T]:
    """The seconds of a call, and its result."""
    started = time.perf_counter()
    value = function()
    return time.perf_counter() - started, value


@contextmanager
def peak_of_memory() -> Iterator[list[int]]:
    """The sampled peak of this process's own memory in bytes, without mapped files and what it had before."""
    before, highest, over = own_memory(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            highest.append(own_memory() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield highest
    finally:
        over.set()
        watcher.join()


def own_memory() -> int:
    """Bytes of this process that belong to no file (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


if __name__ == "__main__":
    main()
