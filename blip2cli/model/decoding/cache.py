"""A key/value cache of slots: each sequence has a row of its own, left-aligned, with a length of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, islice

import torch
from torch.nn import functional as F

GRANULE = 32
"""Capacity grows in steps of this many columns, so that it seldom does."""


class SlotCache:
    """Keys and values of up to `slots` sequences at once, each layer's on the device where the layer is.

    `keys[layer]` and `values[layer]` [slots, heads, columns, head width] are parts of the `blocks`
    [2, layers, slots, heads, columns, head width], one a device. The sequences in use lie in the first slots; when one
    ends the last is moved into its place. Columns behind a sequence's length hold rubbish, which masks hide and later
    tokens overwrite.
    """

    def __init__(self, devices: Sequence[torch.device], slots: int, heads: int, width: int, like: torch.Tensor) -> None:
        self.runs = [(device, len(list(run))) for device, run in groupby(devices)]
        self.lengths = torch.zeros(slots, dtype=torch.long, device=like.device)
        self._hold([like.new_empty(2, layers, slots, heads, 0, width, device=device) for device, layers in self.runs])

    @property
    def columns(self) -> int:
        """How many columns there is room for."""
        return self.blocks[0].shape[4]

    def reserve(self, columns: int) -> None:
        """Make room for that many columns, keeping what is there.

        What is not written yet is zero: attention gives it no weight, and nothing times a stray NaN would be NaN.
        """
        if columns > self.columns:
            room = -(-columns // GRANULE) * GRANULE
            self._hold([F.pad(block, (0, 0, 0, room - self.columns)) for block in self.blocks])

    def _hold(self, blocks: list[torch.Tensor]) -> None:
        self.blocks = blocks
        self.keys = [layer for block in blocks for layer in block[0]]
        self.values = [layer for block in blocks for layer in block[1]]

    def everywhere(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """For each layer the tensor on its device, copied once a device."""
        return [there for device, layers in self.runs for there in [tensor.to(device)] * layers]

    def stacked(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The layers' tensors [2, ...] as blocks are: [2, layers, ...], one a device."""
        rest = iter(tensors)
        return [torch.stack(list(islice(rest, layers)), dim=1) for _, layers in self.runs]

    def fill(self, layer: int, slots: slice, columns: slice, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Write keys and values [n, heads, columns, width] of several slots."""
        self.keys[layer][slots, :, columns] = keys
        self.values[layer][slots, :, columns] = values

    def append(
        self, layer: int, rows: torch.Tensor, ends: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Write one column [n, heads, 1, width] of each of the first n slots; `rows` is arange(n), `ends` where."""
        self.keys[layer][rows, :, ends] = keys[:, :, 0]
        self.values[layer][rows, :, ends] = values[:, :, 0]

    def move(self, source: int, target: int, length: int) -> None:
        """Move the sequence in one slot to another."""
        for block in self.blocks:
            block[:, :, target, :, :length] = block[:, :, source, :, :length]
        self.lengths[target] = self.lengths[source]


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Unscaled attention: q is [n, heads, length, width], k and v [n, heads, columns, width]; the mask is added.

    On the CPU in bf16, PyTorch's fused attention takes twice as long for so few queries as two products do.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        return (q @ k.transpose(-1, -2) + mask).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
