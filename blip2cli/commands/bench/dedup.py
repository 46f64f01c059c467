"""Speed, memory and recall of `blip2 dedup` on generated features.

`python -m blip2cli.commands.bench.dedup --rows 1000000` measures the search for groups. With `--write FILE` it only
writes the features (Parquet or Arrow), for the command itself.

Half of the rows are directions anywhere, which is hardest: all of them are kept, and compared with each other. The
others lie near one of them, at all distances around the threshold. Up to 100,000 rows, all pairs are compared too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from blip2cli.commands.bench.cost import peak_of_memory, peak_of_process, timed
from blip2cli.commands.bench.feature_files import unit, write_features
from blip2cli.commands.bench.machine import describe_machine
from blip2cli.features.duplicates import find_duplicates, unit_vectors
from blip2cli.features.files import Features, open_features

WIDTH = 256
COMPARED = 100_000
"""Rows up to which all pairs are compared."""


def main() -> None:
    """Print what is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--threshold", type=float, default=0.95)
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.write is not None:
        write(arguments.write, arguments.rows)
        return
    print(f"{describe_machine()}\n{arguments.rows:,} rows of {WIDTH} in fp32, threshold {arguments.threshold}")
    with tempfile.TemporaryDirectory(prefix="blip2-") as folder:
        path = Path(folder) / "features.arrow"
        write(path, arguments.rows)
        features = open_features(path, ("vision",))
        measure(features, arguments.threshold)


def measure(features: Features, threshold: float) -> None:
    """How long it takes, in which memory, and how many of all near pairs are respected."""
    order = np.arange(features.rows)
    last = [time.monotonic()]

    def advance(compared: int, total: int) -> None:
        if time.monotonic() - last[0] > 30:
            last[0] = time.monotonic()
            print(f"  {compared / 1e9:,.1f} of {total / 1e9:,.1f} thousand million comparisons", flush=True)

    with peak_of_memory() as peak:
        seconds, found = timed(lambda: find_duplicates(features, order, order, threshold, advance))
    print(
        f"{int(found.is_kept.sum()):,} rows kept, in {seconds:.0f} s, {max(peak) / 1e6:,.0f} MB more than before, "
        f"{peak_of_process() / 1e6:,.0f} MB in all"
    )
    if features.rows <= COMPARED:
        vectors, _ = unit_vectors(features, order)
        pairs, respected = near_pairs(vectors, found.kept, found.is_kept, threshold)
        print(f"of {pairs:,} pairs of near rows by comparing all, {respected:,} have at least one that is dropped")


def near_pairs(vectors: np.ndarray, kept: np.ndarray, is_kept: np.ndarray, threshold: float) -> tuple[int, int]:
    """The pairs that are near, by comparing all in fp32; and those of which at most one row is kept."""
    pairs = respected = 0
    for first in range(0, len(vectors), 1024):
        near = vectors[first : first + 1024] @ vectors.T >= threshold
        rows, others = np.nonzero(near)
        rows += first
        apart = rows < others
        rows, others = rows[apart], others[apart]
        pairs += len(rows)
        respected += int((~(is_kept[rows] & is_kept[others])).sum())
    return pairs, respected


def write(path: Path, rows: int) -> None:
    """Write features as `blip2 embed --features vision` does."""
    rng = np.random.default_rng(0)

    def vectors(number: int) -> np.ndarray:
        anywhere = unit(rng.standard_normal((number, WIDTH)))
        near = rng.permutation(number) < number // 2
        beside = unit(rng.standard_normal((number, WIDTH)))
        distance = rng.uniform(0, 0.6, (number, 1)).astype(np.float32)
        return np.where(near[:, None], unit(anywhere[::-1] + distance * beside), anywhere)

    write_features(path, "vision", rows, vectors)


if __name__ == "__main__":
    main()
