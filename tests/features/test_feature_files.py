"""Files of features: what the exact search finds in them is brute force's, in every format, and memory is bounded."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2cli.errors import UsageError
from blip2cli.features import files as features_module
from blip2cli.features.exact import Best, best_rows, scores_of
from blip2cli.features.files import Features, open_features
from blip2cli.features.index import Index
from tests.features.made import brute_force, made, many, queries


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("block", [1, 10_000, 32 << 20])
def test_the_exact_search_finds_what_brute_force_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, dtype: str, block: int
) -> None:
    monkeypatch.setattr(features_module, "BLOCK", block)
    vectors = made(tmp_path / f"f{suffix}", 333, dtype)
    features = open_features(tmp_path / f"f{suffix}")
    for query, hits in zip(queries(), best_rows(features, queries(), 20), strict=True):
        assert [hit.row for hit in hits] == brute_force(vectors, query, 20)
        expected = scores_of(features.vectors([hit.row for hit in hits]), [query])[0]
        np.testing.assert_allclose([hit.itc for hit in hits], expected, rtol=0, atol=1e-6)


def test_of_equal_rows_the_first_are_found() -> None:
    best = Best(3)
    for first in range(0, 20, 5):
        best.offer(np.arange(first, first + 5), np.array([0.5, 0.1, 0.5, 0.9, 0.5], np.float32))
    assert [hit.row for hit in best.hits()] == [3, 8, 13]
    best = Best(4)
    for first in range(0, 20, 5):
        best.offer(np.arange(first, first + 5), np.full(5, 0.5, np.float32))
    assert [hit.row for hit in best.hits()] == [0, 1, 2, 3]


def test_a_folder_of_shards_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    parts = [made(tmp_path / "shards" / f"part-{at:05}.parquet", 21 * (at + 1), seed=at) for at in range(3)]
    features = open_features(tmp_path / "shards")
    assert features.rows == 21 + 42 + 63
    hits = best_rows(features, queries()[:1], 10)[0]
    assert [hit.row for hit in hits] == brute_force(np.concatenate(parts), queries()[0], 10)
    records = features.records([100, 3, 30, 3])
    assert [record["n"] for record in records] == [100 - 63, 3, 30 - 21, 3] and "features" not in records[0]


def test_more_rows_than_there_are_is_all_that_are_good(tmp_path: Path) -> None:
    made(tmp_path / "f.parquet", 14)
    assert {hit.row for hit in best_rows(open_features(tmp_path / "f.parquet"), queries()[:1], 99)[0]} == (
        set(range(14)) - {6, 13}
    )


def test_memory_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_module, "BLOCK", 50_000)
    made(tmp_path / "f.arrow", 4000)
    sizes: list[int] = []
    blocks = Features.blocks
    monkeypatch.setattr(
        Features, "blocks", lambda self: (sizes.append(block[1].nbytes) or block for block in blocks(self))
    )
    best_rows(open_features(tmp_path / "f.arrow"), queries(), 10)
    assert len(sizes) > 20 and max(sizes) <= 50_000


def test_features_that_are_not_finite_are_never_found(tmp_path: Path) -> None:
    vectors = made(tmp_path / "f.parquet", 70)
    table = pq.read_table(tmp_path / "f.parquet")
    vectors[3], vectors[5, 1, 2] = np.nan, np.inf
    kind = table.schema.field("features").type
    storage = pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), type=kind.storage_type)
    at = table.schema.get_field_index("features")
    pq.write_table(
        table.set_column(at, "features", pa.ExtensionArray.from_storage(kind, storage)), tmp_path / "g.parquet"
    )
    features = open_features(tmp_path / "g.parquet")
    index = Index.of(features, tmp_path / "i.usearch", quiet=True)
    for find in (lambda: best_rows(features, queries(), 70), lambda: index.best_rows(queries(), 70)):
        for hits in find():
            assert 3 not in {hit.row for hit in hits} and np.isfinite([hit.itc for hit in hits]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda table: table.replace_schema_metadata({b"blip2": b'{"features": "itc", "model": "a"}'}),
            "several models",
        ),
        (
            lambda table: table.replace_schema_metadata(
                {b"blip2": b'{"features": "itc", "model": "tiny", "revision": "b"}'}
            ),
            "several models",
        ),
        (
            lambda table: table.rename_columns(["image", "m", "features", "error"]).replace_schema_metadata(
                table.schema.metadata
            ),
            "different columns",
        ),
        (lambda table: table.set_column(0, "image", pa.array(range(len(table)))), "no columns image and error"),
        (lambda table: table.replace_schema_metadata({b"blip2": b"[" * 100_000}), "no known features"),
    ],
)
def test_parts_that_differ_are_refused(tmp_path: Path, change: Callable[[pa.Table], pa.Table], message: str) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for name in ("a.parquet", "b.parquet"):
        made(folder / name, 14)
    pq.write_table(change(pq.read_table(folder / "b.parquet")), folder / "b.parquet")
    with pytest.raises(UsageError, match=message):
        open_features(folder)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".npy"])
def test_files_are_open_only_while_they_are_read(tmp_path: Path, suffix: str) -> None:
    parts = []
    for at in range(60):
        name = tmp_path / f"part-{at:05}{'.parquet' if suffix == '.npy' else suffix}"
        parts.append(made(name, 7, seed=at))
        if suffix == ".npy":
            for folder in ("img_emb", "metadata"):
                (tmp_path / folder).mkdir(exist_ok=True)
            np.save(tmp_path / "img_emb" / f"img_emb_{at:05}.npy", parts[-1])
            pq.write_table(
                pq.read_table(name).drop_columns("features").replace_schema_metadata(pq.read_schema(name).metadata),
                tmp_path / "metadata" / f"metadata_{at:05}.parquet",
            )
    before = len(os.listdir("/dev/fd"))
    features = open_features(tmp_path)
    assert open_files(before) <= before
    hits = best_rows(features, queries()[:1], 30)[0]
    records = features.records(range(0, 420, 7))
    assert open_files(before) <= before
    assert [hit.row for hit in hits] == brute_force(np.concatenate(parts), queries()[0], 30)
    assert [record["n"] for record in records] == [0] * 60


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".npy"])
def test_a_file_is_not_kept_in_memory_as_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(features_module, "BLOCK", 2 << 20)
    vectors = many(tmp_path, suffix, 40_000, 256)
    features = open_features(tmp_path)
    before, most = resident(), 0
    for first, block, _ in features.blocks():
        np.testing.assert_array_equal(block, vectors[first : first + len(block)])
        most = max(most, resident())
    assert most - before < 15_000_000


def resident() -> int:
    """Bytes of files that are mapped and in memory."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile"))
    return int(line.split()[1]) * 1024


def open_files(expected: int) -> int:
    """How many files are open; where there are more than expected, after a while: Arrow's threads close theirs late."""
    deadline = time.monotonic() + 1
    while len(os.listdir("/dev/fd")) > expected and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(os.listdir("/dev/fd"))
