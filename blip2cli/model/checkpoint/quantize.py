"""Weights of fewer bits: dynamic int8 of linear layers on the CPU; bitsandbytes' LLM.int8
and NF4 on CUDA.

On processors with int8 instructions (AVX512-VNNI) the layers use oneDNN's quantised
linear operators, as torch.compile does for int8: they include the activation that
follows, give bf16, and use all eight bits of the activations. Elsewhere torch.ao's
dynamic linear is used, which does none of this.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from blip2cli.errors import CheckpointError
from blip2cli.model.checkpoint.linears import NO_POST_OP, PostOp, replace_linears, works
from blip2cli.model.checkpoint.precision import has_instructions

LARGEST_WEIGHT = 127
"""Weights are int8 from -127 to 127, symmetric; activations are uint8."""

CHANNELS_AT_ONCE = 64
"""Channels that are quantised at once: larger pieces in fp32 would leave holes in the
heap for good."""


def bitsandbytes_config(precision: str, compute: torch.dtype) -> Any:
    """How bitsandbytes loads a model in int8 or int4. It saves memory, and is slower than
    fp16.

    Source: https://huggingface.co/docs/transformers/quantization/bitsandbytes
    """
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise CheckpointError(f"--dtype {precision} on CUDA needs bitsandbytes", "pip install 'blip2cli[int8]'")
    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


class QuantizedLinear(nn.Module):
    """A linear layer with int8 weights, scaled per channel, and perhaps a fused
    activation: [*, in] to [*, out].

    Inputs are quantised per tensor, over their own range. The output has the input's
    dtype.
    """

    def __init__(self, linear: nn.Linear, post_op: PostOp = NO_POST_OP) -> None:
        super().__init__()
        self.scales = torch.empty(linear.out_features)
        quantized = torch.empty(linear.weight.shape, dtype=torch.int8)
        for rows in torch.arange(linear.out_features).split(CHANNELS_AT_ONCE):
            weight = linear.weight.detach()[rows].float()
            scales = weight.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / LARGEST_WEIGHT
            self.scales[rows] = scales
            rounded = weight.div_(scales[:, None]).round_()
            quantized[rows] = rounded.clamp_(-LARGEST_WEIGHT, LARGEST_WEIGHT).to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(quantized, None)
        self.zero_points = torch.zeros(len(quantized), dtype=torch.int32)
        self.bias = None if linear.bias is None else linear.bias.detach().float()
        self.post_op = post_op

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low, high = (float(bound) for bound in torch.aminmax(x))
        low, high = min(low, 0.0), max(high, 0.0)
        if not 0 < high - low < float("inf"):  # all zero, or not finite
            low, high = 0.0, 1.0
        scale = (high - low) / 254  # not 255: zero may be rounded to a whole step
        zero_point = round(-low / scale)
        rows = x.reshape(-1, x.shape[-1]).to(torch.float32, copy=True)
        torch.add(torch.tensor(zero_point + 0.5), rows, alpha=1 / scale, out=rows)
        quantized = rows.to(torch.uint8)  # which rounds down
        name, algorithm = self.post_op
        output: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            quantized, scale, zero_point, self.weight, self.scales, self.zero_points, self.bias,
            1.0, 0, x.dtype, name, [], algorithm,
        )  # fmt: skip
        return output.view(*x.shape[:-1], -1)


@cache
def has_fast_int8() -> bool:
    """Whether processor and PyTorch have what QuantizedLinear needs: tried on a small
    layer, as PyTorch may change."""
    return has_instructions(["avx512_vnni"]) and works(QuantizedLinear, torch.float32)


def quantize_linears(model: nn.Module, dtype: torch.dtype) -> None:
    """Replace every linear layer by a dynamic int8 one, in place; everything else is
    converted to `dtype`.

    The model may have any dtype, straight from a mapped file.
    """
    if has_fast_int8():
        replace_linears(model, QuantizedLinear, finite=True)
    else:
        _quantize_with_torch_ao(model)
    model.to(dtype)


def _quantize_with_torch_ao(model: nn.Module) -> None:
    from torch.ao.nn.quantized.dynamic import Linear
    from torch.ao.quantization import per_channel_dynamic_qconfig

    def make(linear: nn.Linear, post_op: PostOp) -> nn.Module:
        prepared: Any = linear.to(torch.float32)
        prepared.qconfig = per_channel_dynamic_qconfig
        made: nn.Module = Linear.from_float(prepared)
        return made

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch announces at every layer that this interface will end
        replace_linears(model, make, fuse=False, finite=True)
