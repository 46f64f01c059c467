"""Groups of near-duplicates: rows whose vectors have a cosine of at least a threshold with a row that is kept.

The rule: rows are looked at in an order of preference. A row is kept, unless a row that was kept before it is that
near; then it joins the group of the nearest such row. So each row is near the one that is kept instead of it, no two
rows that are kept are near each other, and groups do not chain: a row that is only near a dropped one is kept.

Only kept rows are compared with those that come, a block at a time, so no list of pairs is ever held.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from blip2cli.features.bounds import MARGIN, Shortening
from blip2cli.features.files import Features
from blip2cli.records import RowError

if TYPE_CHECKING:
    import torch

BLOCK = 1024
"""Rows that are compared together with those that are kept."""

TILE = 4096
"""Kept rows that they are compared with at once; fewer are filled up with zeros."""

SAMPLE = 2048
"""Rows by which the shortening is chosen."""

PAIRS = 1 << 16
"""Pairs that are compared in full at once."""

DENSE = 1 / 64
"""The share of a tile's pairs from which all of them are compared in full."""

ROUNDING = 1e-6
"""How far a cosine may be below the threshold: equal vectors have one of 1 up to the rounding of fp32."""

UNUSABLE = RowError("failed", "its features are all 0 or not finite; it was not compared, and is kept")

COLUMNS = ("group", "keep", "duplicate", "similarity", "kept")
"""What is said of each row: the `verdict` on it, and the name of the row that is kept."""

Advance = Callable[[int, int], None]
"""Called with the number of comparisons done, and with how many there will be, as far as can be told."""


@dataclass(frozen=True)
class Groups:
    """For each row the number of the row that is kept for it (its own if it is kept), and their cosine."""

    kept: np.ndarray
    similarity: np.ndarray


@dataclass(frozen=True)
class Duplicates:
    """What became of each row of some features.

    Args:
        kept: the number of the row that is kept for it: its own, if it is kept itself.
        similarity: the cosine with that row; NaN for rows without a vector that can be compared.
        same: the number of the most preferred row with the same content; its own, if there is no other.
        unusable: whether a row has a vector that cannot be compared: all numbers are 0, or some are not finite.
    """

    kept: np.ndarray
    similarity: np.ndarray
    same: np.ndarray
    unusable: np.ndarray

    @cached_property
    def is_kept(self) -> np.ndarray:
        """Whether each row is kept."""
        return self.kept == np.arange(len(self.kept))

    @cached_property
    def groups(self) -> np.ndarray:
        """The number of each row's group, from 0 in the order of the rows that are kept."""
        return np.unique(self.kept, return_inverse=True)[1]

    @cached_property
    def exact(self) -> np.ndarray:
        """Whether each row is dropped because its content is that of the row that is kept."""
        return ~self.is_kept & (self.same == self.kept)

    def verdict(self, row: int) -> tuple[int, bool, str | None, float | None]:
        """A row's group, whether it is kept, how it is a duplicate ("exact", "near" or None), and its similarity."""
        similarity = float(self.similarity[row])
        shown = None if math.isnan(similarity) else round(similarity, 6)
        if self.is_kept[row]:
            return int(self.groups[row]), True, None, shown
        return int(self.groups[row]), False, "exact" if self.exact[row] else "near", shown


def find_duplicates(
    features: Features, order: np.ndarray, same: np.ndarray, threshold: float, advance: Advance | None = None
) -> Duplicates:
    """The duplicates among rows of features: rows of the same content first, and then near-duplicates.

    Args:
        features: the rows.
        order: the numbers of the rows that are compared, the most preferred first; the others are kept.
        same: for each row the number of the most preferred row with the same content.
        threshold: the least cosine of near-duplicates.
        advance: is told of progress.
    """
    compared = order[same[order] == order]
    vectors, good = unit_vectors(features, compared)
    usable = compared[good]
    groups = find_groups(_packed(vectors, good), threshold, advance)
    kept, similarity = np.arange(features.rows), np.full(features.rows, np.nan)
    kept[usable], similarity[usable] = usable[groups.kept], groups.similarity
    unusable = np.zeros(features.rows, bool)
    unusable[compared[~good]] = True
    copies = order[same[order] != order]
    unusable[copies] = unusable[same[copies]]
    dropped = copies[~unusable[copies]]
    kept[dropped], similarity[dropped] = kept[same[dropped]], similarity[same[dropped]]
    return Duplicates(kept, similarity, same, unusable)


def _packed(vectors: np.ndarray, good: np.ndarray) -> np.ndarray:
    """The good vectors one after the other, moved in place: there may be no memory for a copy."""
    if good.all():
        return vectors
    rows = np.flatnonzero(good)
    for first in range(0, len(rows), BLOCK):
        some = rows[first : first + BLOCK]
        vectors[first : first + len(some)] = vectors[some]  # which come from further on
    return vectors[: len(rows)]


def unit_vectors(features: Features, order: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One unit vector for each row: of features of several query tokens the average, fp32 [rows, width].

    Args:
        features: the feature file.
        order: its rows that are wanted, in the order in which they are given.

    Returns:
        The vectors, and which rows have one: no row without features, or whose numbers are all 0 or not finite.
    """
    places = np.full(features.rows, -1, np.int64)
    places[np.asarray(order, np.int64)] = np.arange(len(order))
    vectors = np.zeros((len(order), features.shape[-1]), np.float32)
    good = np.zeros(len(order), bool)
    for first, block, present in features.blocks():
        at = places[first : first + len(block)]
        wanted = present & (at >= 0)
        vectors[at[wanted]], good[at[wanted]] = units_of(block[wanted])
    return vectors, good


def units_of(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The unit vectors fp32 [rows, width] of features [rows, width] or [rows, tokens, width], and which rows have one.

    The others are zeros.
    """
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        pooled = block.mean(axis=1, dtype=np.float32) if block.ndim == 3 else block.astype(np.float32, copy=False)
        lengths = np.sqrt(np.square(pooled, dtype=np.float64).sum(axis=1, keepdims=True))
        good = (np.isfinite(lengths) & (lengths > 0))[:, 0]
        units = (pooled / lengths).astype(np.float32)
    units[~good] = 0
    return units, good


def find_groups(vectors: np.ndarray, threshold: float, advance: Advance | None = None) -> Groups:
    """The groups of unit vectors fp32 [rows, width], which are in the order of preference. Deterministic.

    Memory: beside the vectors up to 512 bytes for each row, and what one block takes.
    """
    rows = len(vectors)
    search = GroupSearch(vectors, threshold)
    kept, similarity = np.arange(rows), np.ones(rows, np.float32)
    compared = 0
    for first in range(0, rows, BLOCK):
        last = min(first + BLOCK, rows)
        kept[first:last], similarity[first:last] = search.add(first, last)
        compared += (last - first) * search.count
        if advance is not None:
            share = search.count / last  # of rows that are kept, so far
            advance(compared, compared + int(share * (rows**2 - last**2) / 2))
    return Groups(kept, similarity)


class GroupSearch:
    """The rows that are kept so far, with which those that come are compared."""

    def __init__(self, vectors: np.ndarray, threshold: float) -> None:
        import torch

        self.vectors = torch.from_numpy(vectors)
        self.least = threshold - ROUNDING
        rows = np.linspace(0, len(vectors) - 1, min(SAMPLE, len(vectors)), dtype=np.int64)
        self.shortening = Shortening.of(self.vectors[torch.from_numpy(rows)], self.least)
        room = TILE * math.ceil(len(vectors) / TILE)
        self.short = torch.zeros((room, self.shortening.length), dtype=torch.bfloat16)
        self.rows = torch.empty(len(vectors), dtype=torch.int64)
        self.products = torch.empty((BLOCK, TILE), dtype=torch.bfloat16)
        self.count = 0

    def add(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """For each row of a block, the row that is kept for it, and their cosine."""
        import torch

        block = self.vectors[first:last]
        short = self.shortening.short(block)
        best = torch.full((len(block),), -2.0)
        kept = torch.full((len(block),), -1, dtype=torch.int64)
        for start in range(0, self.count, TILE):
            self._compare(block, short, slice(start, min(start + TILE, self.count)), best, kept)
        rows, similarity = _within(block, first, self.least, kept.numpy(), best.numpy())
        new = torch.from_numpy(np.flatnonzero(rows == np.arange(first, last)))
        self.short[self.count : self.count + len(new)] = short[new]
        self.rows[self.count : self.count + len(new)] = new + first
        self.count += len(new)
        return rows, similarity

    def _compare(
        self, block: torch.Tensor, short: torch.Tensor, tile: slice, best: torch.Tensor, kept: torch.Tensor
    ) -> None:
        """Compare a block with some of the kept rows, and note for each row the nearest that is near enough."""
        bounds = self._bounds(short, tile)  # bf16 [rows of the block, kept rows]
        possible = (bounds.amax(1) >= self.least - MARGIN).nonzero()[:, 0]
        if not len(possible):
            return
        pairs = (bounds[possible] >= self.least - MARGIN).nonzero()
        if len(pairs) > DENSE * bounds.numel():
            cosines, nearest = (block[possible] @ self.vectors[self.rows[tile]].T).max(1)
        else:
            possible, cosines, nearest = self._nearest(block, possible[pairs[:, 0]], pairs[:, 1], tile)
        better = (cosines > best[possible]) & (cosines >= self.least)
        best[possible[better]] = cosines[better]
        kept[possible[better]] = self.rows[tile][nearest[better]]

    def _bounds(self, short: torch.Tensor, tile: slice) -> torch.Tensor:
        """The bounds of a block's cosines with some of the kept rows. They are overwritten by the next ones.

        Products of one shape, written into one place: oneDNN keeps a program for each shape, and the allocator
        does not give all memory back.
        """
        import torch

        products = self.products[: len(short)]
        torch.mm(short, self.short[tile.start : tile.start + TILE].T, out=products)
        return products[:, : tile.stop - tile.start]

    def _nearest(
        self, block: torch.Tensor, rows: torch.Tensor, others: torch.Tensor, tile: slice
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The distinct rows of pairs, each with its highest cosine, and with which of the others; of equals the first.

        The pairs are sorted by rows, and then by the others.
        """
        import torch

        cosines = torch.cat(
            [
                (block[some] * self.vectors[self.rows[tile][of]]).sum(1)
                for some, of in zip(rows.split(PAIRS), others.split(PAIRS), strict=True)
            ]
        )
        distinct, group = rows.unique_consecutive(return_inverse=True)
        highest = torch.full((len(distinct),), -2.0).scatter_reduce(0, group, cosines, "amax")
        is_highest = (cosines == highest[group]).nonzero()[:, 0].flip(0)
        at = torch.empty_like(distinct)
        at[group[is_highest]] = is_highest  # the first is written last
        return distinct, highest, others[at]


def _within(
    block: torch.Tensor, first: int, least: float, kept: np.ndarray, best: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The groups of a block's rows, once each knows the nearest row that was kept before the block.

    Args:
        block: unit vectors fp32 [rows, width].
        first: the number of the first row.
        least: the least cosine of near rows.
        kept: for each row the nearest row that was kept before, or -1 if none is near.
        best: their cosine.

    Returns:
        For each row the row that is kept for it, and their cosine.
    """
    cosines = (block @ block.T).tril(-1).numpy()
    near = cosines >= least
    if least <= 0:  # zeros stand above the diagonal
        near = np.tril(near, -1)
    kept, best = kept.copy(), best.copy()
    is_kept = kept < 0
    for row in np.flatnonzero(near.any(axis=1)):
        chosen = np.flatnonzero(near[row] & is_kept)
        if not len(chosen):
            continue
        nearest = chosen[np.argmax(cosines[row, chosen])]
        if cosines[row, nearest] > best[row]:
            kept[row], best[row] = first + nearest, cosines[row, nearest]
        is_kept[row] = False
    own = np.flatnonzero(is_kept)
    kept[own], best[own] = first + own, 1.0
    return kept, np.clip(best, -1, 1)
