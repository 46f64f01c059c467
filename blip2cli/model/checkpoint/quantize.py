"""Weights of fewer bits: int8 of linear layers on the CPU; bitsandbytes' LLM.int8 and
NF4 on CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from blip2cli.errors import CheckpointError
from blip2cli.model.checkpoint.int8 import KERNELS, QuantizedLinear
from blip2cli.model.checkpoint.kernel_choice import KernelChoice, Part, choose_kernels
from blip2cli.model.checkpoint.linears import PostOp, replace_linears

LANGUAGE_MODEL, VISION_MODEL = "language_model", "vision_model"
"""The names of these parts in transformers' classes; the Q-Former and its neighbours are the rest."""


def bitsandbytes_config(precision: str, compute: torch.dtype) -> Any:
    """How bitsandbytes loads a model in int8 or int4. It saves memory, and is slower than
    fp16.

    Source: https://huggingface.co/docs/transformers/quantization/bitsandbytes
    """
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise CheckpointError(
            f"--dtype {precision} on CUDA needs bitsandbytes", "Install it: pip install 'blip2cli[int8]'"
        )
    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def quantize_linears(model: nn.Module, dtype: torch.dtype) -> None:
    """Replace every linear layer by an int8 one, in place; everything else is converted to `dtype`.

    The model may have any dtype, straight from a mapped file. In the vision model all rows are of images and each
    image has the same number of them, so that one scale an image is enough, and activations can be fused.
    """
    choice = choose_kernels()
    for part, module in _parts(model):
        replace_linears(module, _maker(choice, part), fuse=part == "vision", finite=True)
    model.to(dtype)


def _parts(model: nn.Module) -> Iterator[tuple[Part, nn.Module]]:
    """The model's parts; the last one is the whole model, of which the first two are replaced by then."""
    children = dict(model.named_children())
    if VISION_MODEL in children:
        yield "vision", children[VISION_MODEL]
    if LANGUAGE_MODEL in children:
        yield "text", children[LANGUAGE_MODEL]
    yield "qformer", model


def _maker(choice: KernelChoice, part: Part) -> Callable[[nn.Linear, PostOp], nn.Module]:
    def make(linear: nn.Linear, post_op: PostOp) -> nn.Module:
        weight = KERNELS[choice.kernel(part, linear.in_features, linear.out_features)](linear)
        return QuantizedLinear(weight, post_op, by_image=part == "vision")

    return make
