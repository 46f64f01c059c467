"""A key/value cache of slots: each sequence has a row of its own, left-aligned, with a length of its own."""

from __future__ import annotations

import torch
from torch.nn import functional as F

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
        """Make room for that many columns, keeping what is there.

        What is not written yet is zero: attention gives it no weight, and nothing times a stray NaN would be NaN.
        """
        there = self.keys.shape[3]
        if columns > there:
            room = -(-columns // GRANULE) * GRANULE
            shape = (*self.keys.shape[:3], room, self.keys.shape[4])
            for name in ("keys", "values"):
                grown = self.keys.new_zeros(shape)
                grown[..., :there, :] = getattr(self, name)
                setattr(self, name, grown)

    def fill(self, layer: int, slots: slice, columns: slice, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Write keys and values [n, heads, columns, width] of several slots."""
        self.keys[layer, slots, :, columns] = keys
        self.values[layer, slots, :, columns] = values

    def append(
        self, layer: int, rows: torch.Tensor, ends: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Write one column [n, heads, 1, width] of each of the first n slots; `rows` is arange(n), `ends` where."""
        self.keys[layer][rows, :, ends] = keys[:, :, 0]
        self.values[layer][rows, :, ends] = values[:, :, 0]

    def move(self, source: int, target: int, length: int) -> None:
        """Move the sequence in one slot to another."""
        self.keys[:, target, :, :length] = self.keys[:, source, :, :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]
        self.lengths[target] = self.lengths[source]


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Unscaled attention: q is [n, heads, length, width], k and v [n, heads, columns, width]; the mask is added.

    On the CPU in bf16, PyTorch's fused attention takes twice as long for so few queries as two products do.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        return (q @ k.transpose(-1, -2) + mask).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
