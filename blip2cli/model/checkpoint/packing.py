"""bf16 on the CPU: linear layers whose weights are laid out for the processor once, not at every call.

PyTorch's bf16 linear hands oneDNN the plain weights, which oneDNN reorders each time it runs. Here they are reordered
once, by the operators that torch.compile's freezing uses, and the activation that follows is part of the same call.
`make bench` measures what comes of it.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from blip2cli.model.checkpoint.linears import NOTHING, PostOp, replace_linears, works


@cache
def available() -> bool:
    """Whether processor and PyTorch have what PackedLinear needs; tried on a small layer.

    oneDNN takes bf16 on processors with AVX-512 only, and refuses it on others.
    """
    return torch.backends.mkldnn.is_available() and works(PackedLinear, torch.bfloat16)


class PackedLinear(nn.Module):
    """A linear layer in bf16, with an activation if one is fused: [*, in] to [*, out]."""

    def __init__(self, linear: nn.Linear, post_op: PostOp = NOTHING) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = None if linear.bias is None else linear.bias.detach()
        self.post_op = post_op

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        name, algorithm = self.post_op
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, name, [], algorithm)
        return output


def pack_linears(model: nn.Module) -> None:
    """Replace every bf16 linear layer by a packed one, in place, and fuse the activations that are known.

    A model is all bf16, or not meant for this: layers that transformers keeps in fp32 would have lost their activation.
    """
    replace_linears(model, PackedLinear)
