"""Which linear layers a loaded model runs, in words: what a measurement was of."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import nn

from blip2cli.model.checkpoint.int8 import KERNELS, QuantizedLinear
from blip2cli.model.checkpoint.packing import PackedLinear


def layers_used(model: Any) -> str:
    """The kinds of a model's linear layers with their numbers: "110 int8 onednn, 97 int8 dynamic"."""
    kinds = Counter(kind for module in model.modules() if (kind := _kind(module)) is not None)
    return ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())


def _kind(module: nn.Module) -> str | None:
    """What a module's products are made by; None if it is not a linear layer."""
    if isinstance(module, QuantizedLinear):
        names = {weight: name for name, weight in KERNELS.items()}
        return f"int8 {names[type(module.weight)]}"
    if isinstance(module, PackedLinear):
        return "packed for oneDNN"
    if isinstance(module, nn.Linear):  # bitsandbytes' layers are subclasses
        return "PyTorch's" if type(module) is nn.Linear else type(module).__name__
    return None
