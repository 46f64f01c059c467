"""fp32 and bf16 on the CPU: linear layers whose weights are arranged for the processor
once, not at every call.

PyTorch's bf16 linear gives oneDNN the plain weights, which oneDNN reorders each time it
runs; its fp32 linear uses MKL, which takes at least twice as long as oneDNN on AMD's
processors. Here weights are reordered once, by the operators that torch.compile's
freezing uses, and the activation that follows is part of the same call. `make bench`
measures the gain.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from blip2cli.model.checkpoint.linears import NO_POST_OP, ArrangedLinear, PostOp, replace_linears, works
from blip2cli.model.checkpoint.precision import has_instructions


@cache
def is_available(dtype: torch.dtype) -> bool:
    """Whether processor and PyTorch have what PackedLinear needs: tried on a small layer.

    oneDNN supports bf16 on processors with AVX-512 only. fp32 was measured on processors with AVX2, and is left to
    PyTorch on others.
    """
    if not torch.backends.mkldnn.is_available() or (dtype == torch.float32 and not has_instructions(["avx2"])):
        return False
    return works(PackedLinear, dtype)


class PackedLinear(ArrangedLinear):
    """A linear layer in fp32 or bf16, perhaps with a fused activation: [*, in] to [*, out]."""

    def __init__(self, linear: nn.Linear, post_op: PostOp = NO_POST_OP) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = None if linear.bias is None else linear.bias.detach()
        self.post_op = post_op

    def product(self, x: torch.Tensor) -> torch.Tensor:
        name, algorithm = self.post_op
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, name, [], algorithm)
        return output

    def plain(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.weight.to_dense(), self.bias


def pack_linears(model: nn.Module) -> None:
    """Replace every linear layer by a packed one, in place, and fuse the activations that
    can be fused.

    All of the model must be in fp32, or all in bf16.
    """
    replace_linears(model, PackedLinear)
