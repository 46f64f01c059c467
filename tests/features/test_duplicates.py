"""Groups of near-duplicates: those of the rule, as comparing all pairs finds them; they do not chain."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from blip2cli import dedup
from blip2cli.errors import UsageError
from blip2cli.features import bounds, duplicates
from blip2cli.features.bounds import MARGIN, Shortening
from blip2cli.features.duplicates import find_duplicates, find_groups, unit_vectors, units_of
from blip2cli.features.files import OF_IMAGES, holds_features, open_features
from blip2cli.features.memory import features_in_memory
from blip2cli.features.preference import preferred
from tests.features.made import made


def clustered(rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Unit vectors near, and not so near, one of some directions; some of them equal."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((rows // 8, width))
    spread = rng.choice([0, 0.1, 0.3, 0.5, 1, 2], (rows, 1))
    return units_of(centres[rng.integers(0, len(centres), rows)] + spread * rng.standard_normal((rows, width)))[0]


def by_the_rule(vectors: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The row that is kept for each, and their cosine, one row after the other."""
    cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    kept: list[int] = []
    of_row, similarity = np.arange(len(vectors)), np.ones(len(vectors))
    for row in range(len(vectors)):
        near = [other for other in kept if cosines[row, other] >= threshold - 1e-6]
        if near:
            of_row[row] = near[int(np.argmax(cosines[row, near]))]
            similarity[row] = cosines[row, of_row[row]]
        else:
            kept.append(row)
    return of_row, similarity


@pytest.mark.parametrize("threshold", [-0.2, 0.3, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("width", [16, 70, 256])
def test_groups_are_those_of_comparing_all_pairs(monkeypatch: pytest.MonkeyPatch, width: int, threshold: float) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", 61)
    monkeypatch.setattr(duplicates, "TILE", 47)
    vectors = clustered(500, width)
    groups = find_groups(vectors, threshold)
    kept, similarity = by_the_rule(vectors, threshold)
    np.testing.assert_allclose(groups.similarity, similarity, rtol=0, atol=1e-5)
    same = groups.kept == kept
    assert same.all() or (threshold == -0.2 and same.mean() > 0.99), "equal similarities may differ in the last bit"


@pytest.mark.parametrize("length", [None, *bounds.LENGTHS])
def test_a_bound_is_never_below_the_cosine(length: int | None) -> None:
    vectors = torch.from_numpy(clustered(400, 256))
    basis = None if length is None else torch.linalg.qr(torch.randn(256, 256))[0][:, : length - 1]
    short = Shortening(basis, length or 256).short(vectors)
    assert ((short @ short.T).float() + MARGIN >= vectors @ vectors.T).all()


def test_pairs_are_compared_in_full_only_where_a_bound_leaves_it_open() -> None:
    rng = np.random.default_rng(3)
    spread = torch.from_numpy(units_of(rng.standard_normal((500, 256)))[0])
    assert Shortening.of(spread, 0.95).length == 64
    assert Shortening.of(spread, 0.2).length == 256, "with 64 numbers, most pairs would have to be compared again"


def test_a_chain_is_not_one_group() -> None:
    """Neighbours are 10 degrees apart: of a chain of 180 degrees every second one is kept, and has its neighbours."""
    angles = np.radians(np.arange(0, 181, 10))
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1)
    threshold = float(np.cos(np.radians(11)))
    rows = dedup(vectors, threshold)
    assert [row["keep"] for row in rows] == [at % 2 == 0 for at in range(19)]
    assert all(vectors[row["image"]] @ vectors[row["kept"]] >= threshold for row in rows)
    assert max(np.bincount([row["group"] for row in rows])) == 2


def test_no_two_kept_rows_are_near_and_a_dropped_row_is_near_one_that_was_preferred() -> None:
    vectors = clustered(400, 32)
    scores = np.random.default_rng(1).integers(0, 9, 400).astype(float)
    order = preferred(scores)
    rank = np.empty(400, int)
    rank[order] = range(400)
    found = find_duplicates(features_in_memory(vectors), order, np.arange(400), 0.9)
    cosines = vectors @ vectors.T
    kept = np.flatnonzero(found.is_kept)
    assert (cosines[np.ix_(kept, kept)] - np.eye(len(kept)) < 0.9).all()
    for row in np.flatnonzero(~found.is_kept):
        assert found.is_kept[found.kept[row]] and rank[found.kept[row]] < rank[row]
        assert cosines[row, found.kept[row]] >= 0.9 - 1e-6


def test_the_most_preferred_come_first_and_what_is_not_a_number_last() -> None:
    assert preferred(np.array([1, np.nan, 3, 3])).tolist() == [2, 3, 0, 1]
    assert preferred(np.array([1.0, 1, 2]), np.array([5.0, 6, 0])).tolist() == [2, 1, 0]


def test_rows_of_the_same_content_are_one_group_however_far_apart() -> None:
    vectors = np.eye(4, 8, dtype=np.float32)
    found = find_duplicates(features_in_memory(vectors), np.arange(4), np.array([0, 1, 0, 1]), 0.9)
    assert found.kept.tolist() == [0, 1, 0, 1] and found.exact.tolist() == [False, False, True, True]


def test_rows_whose_vectors_cannot_be_compared_are_kept(tmp_path: Path) -> None:
    vectors = np.ones((6, 4, 8), np.float32)
    vectors[1], vectors[3, 2, 5], vectors[4, 0, 0] = 0, np.nan, np.inf
    rows = dedup(vectors)
    assert [row["keep"] for row in rows] == [True, True, False, True, True, False]
    assert [row["error"] is not None for row in rows] == [False, True, False, True, True, False]
    assert rows[1]["similarity"] is None and rows[5]["kept"] == 0
    for threshold in (-1.0, -0.5, 0.0):
        assert [row["keep"] for row in dedup(vectors, threshold)] == [row["keep"] for row in rows]


def test_several_query_tokens_are_averaged_and_rows_come_in_the_order_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blip2cli.features.files.BLOCK", 4096)
    vectors = made(tmp_path / "f.parquet", 60)
    features = open_features(tmp_path / "f.parquet")
    order = np.array([5, 40, 6, 7])
    units, good = unit_vectors(features, order)
    mean = vectors[order].mean(1)
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(units[[0, 1, 3]], expected[[0, 1, 3]], atol=1e-6)
    assert good.tolist() == [True, True, False, True], "every seventh row has no features"


def test_pooled_features_of_a_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "vision.parquet"
    kind = pa.fixed_shape_tensor(pa.float32(), (8,))
    storage = pa.FixedSizeListArray.from_arrays(np.eye(3, 8, dtype=np.float32).reshape(-1), 8)
    table = pa.table(
        {
            "image": ["a", "b", "c"],
            "features": pa.ExtensionArray.from_storage(kind, storage),
            "error": pa.nulls(3, pa.string()),
        }
    )
    pq.write_table(table.replace_schema_metadata({b"blip2": b'{"features": "vision", "model": "tiny"}'}), path)
    assert holds_features(path) and holds_features(tmp_path) and not holds_features(tmp_path / "no")
    assert [row["kept"] for row in dedup(path)] == ["a", "b", "c"]
    assert open_features(path, OF_IMAGES).shape == (1, 8)
    with pytest.raises(UsageError, match="vision features"):
        open_features(path)


def test_python_takes_rows_of_embed_and_gives_their_columns() -> None:
    vectors = np.eye(3, 8, dtype=np.float32)
    rows = [
        {"image": "a", "score": 1, "features": vectors[0], "error": None},
        {"image": "b", "score": 2, "features": vectors[0], "error": None},
        {"image": "c", "score": 3, "features": None, "error": "missing: no such file"},
    ]
    a, b, c = dedup(iter(rows), keep="best-score", score_column="score")
    assert (a["kept"], a["keep"], a["duplicate"], a["similarity"], a["score"]) == ("b", False, "near", 1.0, 1)
    assert b["keep"] and b["group"] == a["group"] and "features" not in b
    assert c == {"image": "c", "score": 3, "group": 1, "keep": True, "duplicate": None, "similarity": None,
                 "kept": "c", "error": "missing: no such file"}  # fmt: skip
    assert dedup([]) == []


@pytest.mark.parametrize(
    "call",
    [
        lambda: dedup(np.zeros((3, 4)), threshold=1.5),
        lambda: dedup(np.zeros((3, 4)), threshold=float("nan")),
        lambda: dedup(np.zeros(3)),
        lambda: dedup(np.zeros((3, 4), int)),
        lambda: dedup(7),
        lambda: dedup([{"image": "a"}]),
        lambda: dedup([{"features": np.zeros(3)}, {"features": np.zeros(4)}]),
        lambda: dedup("no such file"),
        lambda: dedup(np.zeros((3, 4)), keep="best-score"),
        lambda: dedup(np.zeros((3, 4)), keep="best-score", score_column="x"),
    ],
)
def test_what_python_cannot_compare_is_told(call) -> None:
    with pytest.raises(UsageError):
        call()
