"""bf16 on the CPU: linear layers whose weights are laid out for the processor once, not at every call.

PyTorch's bf16 linear hands oneDNN the plain weights, which oneDNN reorders each time it runs. Here they are reordered
once, by the operators that torch.compile's freezing uses, and the activation that follows is part of the same call.
Measured by `make bench`; one layer at a time, so that no second copy of the model is ever in memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

FUSED = (
    ("Blip2MLP", "fc1", "activation_fn"),
    ("Blip2QFormerIntermediate", "dense", "intermediate_act_fn"),
    ("OPTDecoderLayer", "fc1", "activation_fn"),
)
"""Where a linear layer is followed by an activation: the module's class, the layer's name, the activation's."""

POST_OPS = {"GELUActivation": ("gelu", "none"), "GELU": ("gelu", "none"), "ReLU": ("relu", "")}
"""Activation class → oneDNN's name for it, and its algorithm."""


def available() -> bool:
    """Whether this PyTorch has the operators."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class PackedLinear(nn.Module):
    """A linear layer in bf16, with an activation if one is fused: [*, in] to [*, out]."""

    def __init__(self, linear: nn.Linear, post_op: tuple[str, str] = ("none", "")) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = None if linear.bias is None else linear.bias.detach()
        self.post_op = post_op

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        name, algorithm = self.post_op
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, name, [], algorithm)
        return output


def pack_linears(model: nn.Module) -> None:
    """Replace every bf16 linear layer by a packed one, in place, and fuse the activations that are known."""
    parents = [module for module in model.modules() if type(module) is not nn.Linear]  # or all weights would stay
    for parent in parents:
        fused = {linear: activation for cls, linear, activation in FUSED if cls == type(parent).__name__}
        for name, child in list(parent.named_children()):
            if type(child) is not nn.Linear or child.weight.dtype != torch.bfloat16:
                continue
            setattr(parent, name, PackedLinear(child, _take_activation(parent, fused.get(name))))


def _take_activation(parent: Any, name: str | None) -> tuple[str, str]:
    """The post-op for a module's activation, which is taken out of it; none where it has no such activation."""
    post_op = POST_OPS.get(type(getattr(parent, name)).__name__) if name else None
    if name is None or post_op is None:
        return ("none", "")
    setattr(parent, name, nn.Identity())
    return post_op
