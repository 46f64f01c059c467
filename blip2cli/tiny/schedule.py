"""What the stages share: optimizer, learning-rate schedule (warm-up, then cosine to nothing), step, and precision."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

_WARM_UP = 100


def new_optimizer(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """AdamW with little weight decay."""
    return torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.02, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, steps: int) -> None:
    """Set the learning rate for `step` of `steps`."""
    warm = min(_WARM_UP, steps // 10 + 1)
    share = (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
    for group in optimizer.param_groups:
        group["lr"] = peak * share


def descend(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Take one step down the loss, with gradients clipped to a norm of 1."""
    loss.backward()
    nn.utils.clip_grad_norm_([weight for group in optimizer.param_groups for weight in group["params"]], 1.0)
    optimizer.step()
    optimizer.zero_grad()


@contextmanager
def training_precision() -> Iterator[None]:
    """bf16 autocast, and plain attention: the CPU's fused attention takes half the step in its backward pass."""
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        yield
