"""`blip2 search --index`: an index finds nearly all that the exact search finds, and is told from other files."""

import sys
from pathlib import Path

import numpy as np
import pytest

from blip2cli.errors import UsageError
from blip2cli.features.exact import best_rows, scores_of
from blip2cli.features.files import open_features
from blip2cli.features.index import MOST, Index
from tests.features.made import WIDTH, made, queries


def test_an_index_finds_nearly_what_the_exact_search_finds_with_the_same_scores(tmp_path: Path) -> None:
    made(tmp_path / "f.arrow", 3000)
    features = open_features(tmp_path / "f.arrow")
    index = Index.of(features, tmp_path / "i.usearch", quiet=True)
    rng = np.random.default_rng(7)
    many = [one / np.linalg.norm(one) for one in rng.standard_normal((40, 1, WIDTH)).astype(np.float32)]
    exact, found = best_rows(features, [*many, queries()[1]], 10), index.best_rows([*many, queries()[1]], 10)
    recall = np.mean(
        [len({hit.row for hit in a} & {hit.row for hit in b}) / 10 for a, b in zip(exact, found, strict=True)]
    )
    assert recall > 0.95
    known = [{hit.row: hit.itc for hit in hits} for hits in exact]
    for scores, hits in zip(known, found, strict=True):
        assert all(scores.get(hit.row, hit.itc) == pytest.approx(hit.itc, abs=1e-6) for hit in hits)
        assert not any(hit.row % 7 == 6 for hit in hits)


def test_an_index_is_built_once_and_a_stale_one_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "f.parquet", 200)
    features, path = open_features(tmp_path / "f.parquet"), tmp_path / "i.usearch"
    first = Index.of(features, path, quiet=True).best_rows(queries(), 5)
    built = path.stat().st_mtime_ns
    assert Index.of(features, path, quiet=True).best_rows(queries(), 5) == first
    assert path.stat().st_mtime_ns == built
    for rows, seed in ((201, 0), (200, 1)):
        made(tmp_path / "other.parquet", rows, seed=seed)
        with pytest.raises(UsageError, match="is not an index of"):
            Index.of(open_features(tmp_path / "other.parquet"), path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UsageError, match="is damaged"):
        Index.of(features, path)
    path.unlink()  # as if it had been killed just before it was whole
    assert Index.of(features, path, quiet=True).best_rows(queries(), 5) == first


def test_a_file_that_is_no_index_is_left_alone(tmp_path: Path) -> None:
    made(tmp_path / "f.parquet", 20)
    before = (tmp_path / "f.parquet").read_bytes()
    with pytest.raises(UsageError, match="is not an index of blip2"):
        Index.of(open_features(tmp_path / "f.parquet"), tmp_path / "f.parquet")
    with pytest.raises(UsageError, match="there is no folder"):
        Index.of(open_features(tmp_path / "f.parquet"), tmp_path / "gone" / "i.usearch")
    assert (tmp_path / "f.parquet").read_bytes() == before
    for mine in ('{"rows": "of mine"}', "[" * 100_000):
        (tmp_path / "mine.json").write_text(mine)
        with pytest.raises(UsageError, match=r"mine\.json exists, and is not an index of blip2"):
            Index.of(open_features(tmp_path / "f.parquet"), tmp_path / "mine", quiet=True)
        assert (tmp_path / "mine.json").read_text() == mine and not (tmp_path / "mine").exists()


def test_the_package_of_an_index_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "f.parquet", 14)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(UsageError, match="usearch") as raised:
        Index.of(open_features(tmp_path / "f.parquet"), tmp_path / "i.usearch")
    assert "blip2cli[search]" in raised.value.hint


def test_an_index_of_rows_that_are_not_there_is_told(tmp_path: Path) -> None:
    from usearch.index import Index as Graph

    made(tmp_path / "f.parquet", 20)
    features, path = open_features(tmp_path / "f.parquet"), tmp_path / "i.usearch"
    Index.of(features, path, quiet=True)
    graph = Graph(ndim=WIDTH, metric="ip", dtype="f16", multi=True)
    graph.add(np.array([10**12]), np.ones((1, WIDTH), np.float32))
    graph.save(str(path))
    with pytest.raises(UsageError, match="names rows that its features do not have"):
        Index.of(features, path).best_rows(queries(), 5)
    narrow = Graph(ndim=8, metric="ip", dtype="f16", multi=True)
    narrow.add(np.array([1]), np.ones((1, 8), np.float32))
    narrow.save(str(path))
    with pytest.raises(UsageError, match="is damaged"):
        Index.of(features, path)


def test_more_rows_than_an_index_finds_are_refused(tmp_path: Path) -> None:
    made(tmp_path / "f.parquet", 20)
    features, path = open_features(tmp_path / "f.parquet"), tmp_path / "i.usearch"
    room = MOST // features.shape[0]
    with pytest.raises(UsageError, match=f"finds {room:,} rows at most"):
        Index.of(features, path, most=room + 1)
    assert not path.exists()


@pytest.mark.parametrize("number", [np.inf, 3e38])
def test_numbers_without_end_are_compared_without_a_warning(number: float) -> None:
    rows = np.full((2, 1, 4), number, np.float32)
    (scores,) = scores_of(rows, [np.array([[1, -1, 1, 1], [1, 1, 1, 1]], np.float32)])
    assert not np.isfinite(scores).any()
