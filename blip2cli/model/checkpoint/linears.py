"""Replacing the linear layers of a model, one at a time, together with the activation
that follows them; and `ArrangedLinear`, what they are replaced by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from blip2cli.errors import CheckpointError
from blip2cli.host.terminal import counted

PostOp = tuple[str, str]
"""An operation on a layer's output within the same call: oneDNN's name for it, and for
its algorithm."""

NO_POST_OP: PostOp = ("none", "none")

FUSED = (
    ("Blip2MLP", "fc1", "activation_fn"),
    ("Blip2QFormerIntermediate", "dense", "intermediate_act_fn"),
    ("OPTDecoderLayer", "fc1", "activation_fn"),
)
"""Modules in which an activation follows a linear layer: the class, the names of the
layer and of the activation."""

POST_OPS: dict[str, PostOp] = {"GELUActivation": ("gelu", "none"), "GELU": ("gelu", "none"), "ReLU": ("relu", "none")}
"""Class of an activation → the post-op that does the same."""


JOINED = (
    ("OPTAttention", ("q_proj", "k_proj", "v_proj")),
    ("T5Attention", ("k", "v")),
    ("T5DenseGatedActDense", ("wi_0", "wi_1")),
    ("Blip2QFormerMultiHeadAttention", ("key", "value")),
)
"""Modules with linear layers that are always given the same input: the class, the names of the layers."""


class ArrangedLinear(nn.Module, ABC):
    """A linear layer whose weights are arranged for a library: [*, in] to [*, out].

    Such libraries compute no gradients. Where one is asked for, it flows to the layer's
    input alone, and is computed from the weights in their plain form.
    """

    post_op: PostOp = NO_POST_OP
    """The operation on the layer's output, which is part of `product`."""

    @abstractmethod
    def product(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output, as the library computes it."""

    @abstractmethod
    def plain(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The weight [out, in] and the bias [out] in their plain form, made at each call."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            with_gradient: torch.Tensor = _WithGradient.apply(x, self)
            return with_gradient
        return self.product(x)


class _WithGradient(torch.autograd.Function):
    """The product of an ArrangedLinear, through which gradients flow."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: ArrangedLinear) -> torch.Tensor:
        ctx.layer = layer
        ctx.save_for_backward(x)
        return layer.product(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (x,) = ctx.saved_tensors
        weight, bias = ctx.layer.plain()
        if ctx.layer.post_op != NO_POST_OP:
            before = F.linear(x.to(weight.dtype), weight, bias)
            gradient = gradient * _slope(before, ctx.layer.post_op)
        return (gradient.to(weight.dtype) @ weight).to(x.dtype), None


def _slope(before: torch.Tensor, post_op: PostOp) -> torch.Tensor:
    """The derivative of a post-op at values that it is given."""
    name, algorithm = post_op
    with torch.enable_grad():
        at = before.detach().requires_grad_()
        after = F.relu(at) if name == "relu" else F.gelu(at, approximate=algorithm)
        (slope,) = torch.autograd.grad(after.sum(), at)
    return slope


class JoinedLinears(nn.Module):
    """Linear layers of one input as a single layer, which is computed when the first of them is called.

    Args:
        layer: [*, in] to [*, sum of widths].
        widths: how many outputs each of the layers has.
    """

    def __init__(self, layer: nn.Module, widths: Sequence[int]) -> None:
        super().__init__()
        self.layer, self.widths = layer, list(widths)
        self.input: torch.Tensor | None = None
        self.outputs: dict[int, torch.Tensor] = {}

    def output_of(self, number: int, x: torch.Tensor) -> torch.Tensor:
        """The output of one layer. It waits here from the call of another with the same tensor, if there was one."""
        if x is not self.input or number not in self.outputs:
            self.input = x
            self.outputs = dict(enumerate(self.layer(x).split(self.widths, dim=-1)))
        output = self.outputs.pop(number)
        if not self.outputs:
            self.input = None
        return output


class PartOfJoined(nn.Module):
    """One of the layers of JoinedLinears, in its place."""

    def __init__(self, joined: JoinedLinears, number: int) -> None:
        super().__init__()
        self.joined, self.number = joined, number

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.joined.output_of(self.number, x)


def replace_linears(
    model: nn.Module, make: Callable[[nn.Linear, PostOp], nn.Module], fuse: bool = True, finite: bool = False
) -> None:
    """Replace every linear layer in place by what `make` makes of the layer and its
    post-op; layers that are always given the same input are joined first.

    Each layer is freed before the next is made, so that there is never a second copy of
    the model in memory. With `finite`, raises CheckpointError for weights that are NaN or
    infinite, which int8 would turn into numbers.
    """
    # the list must not hold the linear layers, which would keep all their weights
    parents = [module for module in model.modules() if type(module) is not nn.Linear]
    for parent in counted(parents, len(parents), "parts"):
        _join_linears(parent, make, finite)
        fused = _fused_activations(parent) if fuse else {}
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                if finite:
                    _check_finite(type(parent).__name__, name, child.weight)
                setattr(parent, name, make(child, _take_activation(parent, fused.get(name))))


def works(make: Callable[[nn.Linear, PostOp], nn.Module], dtype: torch.dtype) -> bool:
    """Whether a kind of layer runs here and agrees with PyTorch's own: tried on a small
    layer of that dtype."""
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(64, 32)
    for parameter in linear.parameters():
        nn.init.normal_(parameter, generator=generator)
    x = torch.randn(8, 64, generator=generator)
    try:
        with torch.inference_mode():
            expected = linear(x).relu()
            output = make(linear.to(dtype), ("relu", "none"))(x.to(dtype)).float()
    except (AttributeError, RuntimeError, TypeError):  # the operator is missing, or refuses
        return False
    return bool((output - expected).norm() < 0.05 * expected.norm())


def _join_linears(parent: nn.Module, make: Callable[[nn.Linear, PostOp], nn.Module], finite: bool) -> None:
    """Replace the layers of a module that JOINED names, if they are alike, by parts of one."""
    for module, names in JOINED:
        if module != type(parent).__name__:
            continue
        layers = [getattr(parent, name) for name in names]
        if not all(type(layer) is nn.Linear for layer in layers) or not _alike(layers):
            continue
        if finite:
            for name, layer in zip(names, layers, strict=True):
                _check_finite(module, name, layer.weight)
        joined = JoinedLinears(make(_concatenated(layers), NO_POST_OP), [layer.out_features for layer in layers])
        for number, name in enumerate(names):
            setattr(parent, name, PartOfJoined(joined, number))


def _alike(layers: Sequence[nn.Linear]) -> bool:
    """Whether layers have inputs of one size and one dtype, and all of them a bias, or none."""
    kinds = {(layer.in_features, layer.weight.dtype, layer.bias is None) for layer in layers}
    return len(kinds) == 1


def _concatenated(layers: Sequence[nn.Linear]) -> nn.Linear:
    """A linear layer whose outputs are those of all the layers, one after another."""
    first = layers[0]
    joined = nn.Linear(first.in_features, sum(layer.out_features for layer in layers), device="meta")
    joined.weight = _fixed([layer.weight for layer in layers])
    joined.bias = None if first.bias is None else _fixed([layer.bias for layer in layers])
    return joined


def _fixed(parts: Sequence[torch.Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.cat([part.detach() for part in parts]), requires_grad=False)


def _fused_activations(parent: nn.Module) -> dict[str, str]:
    """Names of a module's linear layers → names of the activations that follow them."""
    return {linear: activation for module, linear, activation in FUSED if module == type(parent).__name__}


def _take_activation(parent: Any, name: str | None) -> PostOp:
    """The post-op for a module's activation, which is removed from it; NO_POST_OP if
    there is none for it."""
    post_op = POST_OPS.get(type(getattr(parent, name)).__name__) if name else None
    if name is None or post_op is None:
        return NO_POST_OP
    setattr(parent, name, nn.Identity())
    return post_op


def _check_finite(parent: str, name: str, weight: torch.Tensor) -> None:
    if not bool(torch.isfinite(weight).all()):
        raise CheckpointError(
            f"weights of {name} in {parent} are NaN or infinite", "Fetch the checkpoint again, or save it again."
        )
