"""Putting other linear layers into a model, one at a time, together with the activation that follows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from blip2cli.errors import CheckpointError

PostOp = tuple[str, str]
"""oneDNN's name of what is done to a layer's output in the same call, and the algorithm it does it by."""

NOTHING: PostOp = ("none", "none")

FUSED = (
    ("Blip2MLP", "fc1", "activation_fn"),
    ("Blip2QFormerIntermediate", "dense", "intermediate_act_fn"),
    ("OPTDecoderLayer", "fc1", "activation_fn"),
)
"""Where a linear layer is followed by an activation: the module's class, the layer's name, the activation's."""

POST_OPS: dict[str, PostOp] = {"GELUActivation": ("gelu", "none"), "GELU": ("gelu", "none"), "ReLU": ("relu", "none")}
"""Activation class → the same as a post-op."""


def replace_linears(model: nn.Module, make: Callable[[nn.Linear, PostOp], nn.Module], fuse: bool = True) -> None:
    """Replace every linear layer by what `make` makes of it and its post-op, in place.

    The old layer is let go of before the next is made, so that no second copy of the model is ever in memory. Raises
    CheckpointError for weights that are NaN or infinite, of which int8 would make numbers.
    """
    parents = [module for module in model.modules() if type(module) is not nn.Linear]  # or all weights would stay
    for parent in parents:
        fused = {linear: act for cls, linear, act in FUSED if fuse and cls == type(parent).__name__}
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                _check_finite(type(parent).__name__, name, child.weight)
                setattr(parent, name, make(child, _take_activation(parent, fused.get(name))))


def works(make: Callable[[nn.Linear, PostOp], nn.Module], dtype: torch.dtype) -> bool:
    """Whether a kind of layer runs here and gives what PyTorch's own gives: tried on a small one of that dtype."""
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(64, 32)
    for parameter in linear.parameters():
        nn.init.normal_(parameter, generator=generator)
    x = torch.randn(8, 64, generator=generator)
    try:
        with torch.inference_mode():
            expected = linear(x).relu()
            output = make(linear.to(dtype), ("relu", "none"))(x.to(dtype)).float()
    except (AttributeError, RuntimeError, TypeError):  # what an operator that is missing or refuses may raise
        return False
    return bool((output - expected).norm() < 0.05 * expected.norm())


def _take_activation(parent: Any, name: str | None) -> PostOp:
    """The post-op for a module's activation, which is taken out of it; nothing where it has no such activation."""
    post_op = POST_OPS.get(type(getattr(parent, name)).__name__) if name else None
    if name is None or post_op is None:
        return NOTHING
    setattr(parent, name, nn.Identity())
    return post_op


def _check_finite(parent: str, name: str, weight: torch.Tensor) -> None:
    if not bool(torch.isfinite(weight).all()):
        raise CheckpointError(
            f"weights of {name} in {parent} are NaN or infinite", "Fetch the checkpoint again, or save it again."
        )
