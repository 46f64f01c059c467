"""A key/value cache of slots: each sequence has its own row, left-aligned, and its own
length."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, islice

import torch
from torch.nn import functional as F

SlotIndex = slice | torch.Tensor

GRANULE = 32
"""Capacity grows in steps of this many columns, so that it grows rarely."""


class SlotCache:
    """Keys and values of up to `slots` sequences, each layer's on the layer's device.

    `keys[layer]` and `values[layer]` [slots, heads, columns, head width] are parts of the
    `blocks` [2, layers, slots, heads, columns, head width], one for each device;
    `lengths` [slots] are on the device of `like`. Columns after a sequence's length are
    hidden by masks, and overwritten by later tokens. On a CPU, a slot takes no memory
    until it is cleared or copied to for the first time: only the first `begun` slots hold
    anything.
    """

    def __init__(self, devices: Sequence[torch.device], slots: int, heads: int, width: int, like: torch.Tensor) -> None:
        self.runs = [(device, len(list(run))) for device, run in groupby(devices)]
        self.lengths = torch.zeros(slots, dtype=torch.long, device=like.device)
        self.begun = 0 if like.device.type == "cpu" else slots
        self._hold([like.new_empty(2, layers, slots, heads, 0, width, device=device) for device, layers in self.runs])

    @property
    def columns(self) -> int:
        """The number of columns that there is room for."""
        return self.blocks[0].shape[4]

    def reserve(self, columns: int, keep: bool = True) -> None:
        """Make room for that many columns, and keep the contents if that is asked for;
        new columns are zero."""
        if columns <= self.columns:
            return
        room = -(-columns // GRANULE) * GRANULE
        if keep:
            self._hold([self._widened(block, room) for block in self.blocks])
            return
        empty = [block.new_empty(*block.shape[:4], 0, block.shape[5]) for block in self.blocks]
        self._hold(empty)  # the old blocks are freed before the new ones are made
        self._hold([block.new_zeros(*block.shape[:4], room, block.shape[5]) for block in empty])

    def _widened(self, block: torch.Tensor, room: int) -> torch.Tensor:
        """A block with that many columns, which holds what the slots that are begun hold."""
        widened = block.new_empty(*block.shape[:4], room, block.shape[5])
        widened[:, :, : self.begun, :, : self.columns] = block[:, :, : self.begun]
        widened[:, :, : self.begun, :, self.columns :] = 0
        return widened

    def _begin(self, slots: torch.Tensor) -> None:
        """Note that slots hold something from now on."""
        if self.lengths.device.type == "cpu" and len(slots):
            self.begun = max(self.begun, int(slots.max()) + 1)

    def _hold(self, blocks: list[torch.Tensor]) -> None:
        self.blocks = blocks
        self.keys = [layer for block in blocks for layer in block[0]]
        self.values = [layer for block in blocks for layer in block[1]]

    def everywhere(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """For each layer the tensor on its device, copied once for each device."""
        copies: list[torch.Tensor] = []
        for device, layers in self.runs:
            copies += [tensor.to(device)] * layers
        return copies

    def stacked(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The layers' tensors [2, ...] stacked like blocks: [2, layers, ...], one for
        each device."""
        rest = iter(tensors)
        return [torch.stack(list(islice(rest, layers)), dim=1) for _, layers in self.runs]

    def places(self, slots: torch.Tensor) -> list[SlotIndex]:
        """For each layer the index of slots [n] into its keys and values."""
        indices: list[SlotIndex] = []
        for device, layers in self.runs:
            indices += [_index(slots.to(device))] * layers
        return indices

    def clear(self, slots: torch.Tensor, first: int = 0) -> None:
        """Make columns from the first on zero: attention gives hidden ones no weight, but
        zero times NaN is NaN."""
        self._begin(slots)
        for block in self.blocks:
            block[:, :, _index(slots.to(block.device)), :, first:] = 0

    def fill(self, layer: int, slots: SlotIndex, columns: slice, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Write keys and values [n, heads, columns, width] of several slots [n], which
        `places` gives."""
        self.keys[layer][slots, :, columns] = keys
        self.values[layer][slots, :, columns] = values

    def put(self, slots: torch.Tensor, prefixes: Sequence[Sequence[torch.Tensor]]) -> None:
        """Write the first columns of slots [n]: for each, a part [2, layers, heads,
        columns, head width] a device."""
        for block, parts in zip(self.blocks, zip(*prefixes, strict=True), strict=True):
            first_columns = block[:, :, :, :, : parts[0].shape[3]]
            if block.device.type == "cpu":  # where stacking them first would be another copy
                for slot, part in zip(slots.tolist(), parts, strict=True):
                    first_columns[:, :, slot] = part
            else:
                first_columns[:, :, slots.to(block.device)] = torch.stack(parts, dim=2)

    def append(
        self, layer: int, rows: torch.Tensor, ends: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Write one column [n, heads, 1, width] of each of the first n slots; `rows` is
        arange(n), `ends` where."""
        self.keys[layer][rows, :, ends] = keys[:, :, 0]
        self.values[layer][rows, :, ends] = values[:, :, 0]

    def copy(self, sources: torch.Tensor, targets: torch.Tensor, columns: slice = slice(None)) -> None:
        """Copy sequences from slots [n] to slots [n], which may overlap: all are read
        before any is written."""
        self._begin(targets)
        if self.lengths.device.type == "cpu":
            self._copy_one_by_one(sources.tolist(), targets.tolist(), columns)
        else:
            self._copy_together(sources, targets, columns)
        self.lengths[targets] = self.lengths[sources]

    def _copy_one_by_one(self, sources: Sequence[int], targets: Sequence[int], columns: slice) -> None:
        """Faster on a CPU than indexing by tensors."""
        overwritten = set(targets)
        for block in self.blocks:
            saved = {slot: block[:, :, slot, :, columns].clone() for slot in sources if slot in overwritten}
            for source, target in zip(sources, targets, strict=True):
                if source != target:
                    sequence = block[:, :, source, :, columns]
                    block[:, :, target, :, columns] = saved.get(source, sequence)

    def _copy_together(self, sources: torch.Tensor, targets: torch.Tensor, columns: slice) -> None:
        """Layer by layer, because what is read takes memory until it is written."""
        read, written = self.everywhere(sources), self.everywhere(targets)
        for layer, (source, target) in enumerate(zip(read, written, strict=True)):
            for states in (self.keys[layer], self.values[layer]):
                states[target, :, columns] = states[source, :, columns]


def _index(slots: torch.Tensor) -> SlotIndex:
    """Slots as a slice if they are evenly spaced and on a CPU, where slices are copied
    faster."""
    if slots.device.type != "cpu" or not len(slots):
        return slots
    first, last = int(slots[0]), int(slots[-1])
    step = max(1, (last - first) // max(1, len(slots) - 1))
    is_even = slots.tolist() == list(range(first, last + 1, step))
    return slice(first, last + 1, step) if is_even else slots


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Unscaled attention: q is [n, heads, length, width], k and v [n, heads, columns,
    width]; the mask is added.

    On the CPU in bf16, PyTorch's fused attention takes twice as long for so few queries
    as two products do.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        return (q @ k.transpose(-1, -2) + mask).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)


def hide(hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A boolean mask (true: hidden) as numbers that are added to attention scores."""
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, float("-inf"))
