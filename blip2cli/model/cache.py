"""A key/value cache of slots: each sequence has a row of its own, left-aligned, with a length of its own."""

from __future__ import annotations

import torch

GRANULE = 32
"""Capacity grows in steps of this many columns, so that it seldom does."""


class SlotCache:
    """Keys and values [layers, slots, heads, columns, head width] of up to `slots` sequences at once.

    The sequences in use lie in the first slots; when one ends the last is moved into its place. Columns behind a
    sequence's length hold rubbish, which masks hide and later tokens overwrite.
    """

    def __init__(self, layers: int, slots: int, heads: int, width: int, like: torch.Tensor) -> None:
        self.keys = like.new_empty(layers, slots, heads, 0, width)
        self.values = like.new_empty(layers, slots, heads, 0, width)
        self.lengths = torch.zeros(slots, dtype=torch.long, device=like.device)

    def reserve(self, columns: int) -> None:
        """Make room for that many columns, keeping what is there."""
        there = self.keys.shape[3]
        if columns > there:
            more = -(-columns // GRANULE) * GRANULE - there
            shape = (*self.keys.shape[:3], more, self.keys.shape[4])
            self.keys = torch.cat([self.keys, self.keys.new_zeros(shape)], dim=3)
            self.values = torch.cat([self.values, self.values.new_zeros(shape)], dim=3)

    def fill(self, layer: int, slots: slice, columns: slice, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Write keys and values [n, heads, columns, width] of several slots."""
        self.keys[layer, slots, :, columns] = keys
        self.values[layer, slots, :, columns] = values

    def append(self, layer: int, rows: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Write one column [n, heads, 1, width] behind each of the first n sequences; `rows` is arange(n)."""
        ends = self.lengths[: len(rows)]
        self.keys[layer][rows, :, ends] = keys[:, :, 0]
        self.values[layer][rows, :, ends] = values[:, :, 0]

    def move(self, source: int, target: int, length: int) -> None:
        """Move the sequence in one slot to another."""
        self.keys[:, target, :, :length] = self.keys[:, source, :, :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]
        self.lengths[target] = self.lengths[source]
