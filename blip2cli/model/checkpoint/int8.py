"""Linear layers in int8 on the CPU: oneDNN's and PyTorch's own products, and which of them run here.

Weights have a scale for each channel. Activations have a scale for each row, or in the vision model for each image,
so that what an image or a text gives does not depend on what is computed at the same time. Which kernel a layer uses
is decided in `kernel_choice.py`.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import torch
from torch import nn
from torch.nn import functional as F

from blip2cli.errors import UsageError
from blip2cli.model.checkpoint.linears import NO_POST_OP, ArrangedLinear, PostOp

CHANNELS_AT_ONCE = 64
"""Channels that are quantised at once: larger pieces in fp32 would leave holes in the heap for good."""

ZERO = 128
"""What stands for zero among activations that are quantised by row: uint8, from 1 to 255."""

MOST = 127
"""The largest quantised activation of a row, apart from ZERO."""

ROUNDER = 1.5 * 2**23
"""A number between which and its neighbours in fp32 there are no fractions: what is added to it is rounded."""

SMALLEST = torch.finfo(torch.float32).tiny

SMALLEST_ROW = 1e-30
"""The largest magnitude of a row below which its numbers count as smaller than they are, and in the end as zero."""

NARROWEST = 1e-30
"""The range of an image's activations below which all of them count as zero."""

PROBE_ROWS = (1, 8, 64)
"""Numbers of rows with which a kernel is tried: libraries have other code for few rows."""


class Int8Weight(ABC):
    """The weights of a linear layer in int8, arranged for one library, with the products that it has.

    Args:
        linear: the layer, with finite weights of any dtype.
    """

    largest: int
    """Weights are int8 from -largest to largest, symmetric."""

    def __init__(self, linear: nn.Linear) -> None:
        self.bias = None if linear.bias is None else linear.bias.detach().float()
        self.out_features = linear.out_features

    @abstractmethod
    def of_image(self, x: torch.Tensor, post_op: PostOp) -> torch.Tensor:
        """[n, in] to [n, out] in the dtype of `x`, with one scale for all of `x`."""

    @abstractmethod
    def of_rows(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] to [n, out] in the dtype of `x`, with a scale for each row."""

    @abstractmethod
    def plain(self) -> torch.Tensor:
        """The weights as numbers, fp32 [out, in]."""


class OneDnnWeight(Int8Weight):
    """oneDNN's quantised linear, which torch.compile uses too: any dtype, activation functions included."""

    largest = 127

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        quantized, self.scales = quantized_weight(linear, self.largest)
        self.weight = torch.ops.onednn.qlinear_prepack(quantized, None)
        self.zero_points = torch.zeros(len(quantized), dtype=torch.int32)

    def of_image(self, x: torch.Tensor, post_op: PostOp) -> torch.Tensor:
        low, high = (float(bound) for bound in torch.aminmax(x))
        low, high = min(low, 0.0), max(high, 0.0)
        if not NARROWEST < high - low < float("inf"):  # all zero, or not finite
            low, high = 0.0, 1.0
        scale = (high - low) / 253  # not 255: both ends may be half a step further out
        zero_point = 1 + round(-low / scale)
        rows = x.to(torch.float32, copy=True)
        torch.add(torch.tensor(zero_point + ROUNDER), rows, alpha=1 / scale, out=rows)
        return self._product(_last_bytes(rows), scale, zero_point, self.bias, x.dtype, post_op)

    def of_rows(self, x: torch.Tensor) -> torch.Tensor:
        rows, scales = _normalized(x, MOST)
        quantized = _last_bytes(rows.add_(ZERO + ROUNDER))
        product = self._product(quantized, 1.0, ZERO, None, torch.float32, NO_POST_OP)
        return _rescaled(product, scales, self.bias).to(x.dtype)

    def plain(self) -> torch.Tensor:
        stored: torch.Tensor = self.weight.to_dense()  # int8 [in, out]
        return stored.t().float() * self.scales[:, None]

    def _product(
        self,
        quantized: torch.Tensor,
        scale: float,
        zero_point: int,
        bias: torch.Tensor | None,
        dtype: torch.dtype,
        post_op: PostOp,
    ) -> torch.Tensor:
        name, algorithm = post_op
        output: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            quantized, scale, zero_point, self.weight, self.scales, self.zero_points, bias,
            1.0, 0, dtype, name, [], algorithm,
        )  # fmt: skip
        return output


class SmallOneDnnWeight(OneDnnWeight):
    """The same with weights of seven bits, for processors whose instructions add two products in 16 bits.

    Without AVX512-VNNI, AVX-VNNI or AMX two products of 8 bits are more than 16 bits hold, and are cut off.
    """

    largest = 63


class DynamicWeight(Int8Weight):
    """PyTorch's dynamic quantised linear: FBGEMM, or QNNPACK on Arm. It quantises fp32 activations itself.

    Activations have seven bits where eight do not fit, as with SmallOneDnnWeight.
    """

    largest = 127
    fewer_bits = False

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        quantized, scales = quantized_weight(linear, self.largest)
        zero_points = torch.zeros(len(quantized), dtype=torch.long)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch announces that quantised tensors will end
            made = torch._make_per_channel_quantized_tensor(quantized, scales.double(), zero_points, 0)
            self.weight = torch.ops.quantized.linear_prepack(made, None)
        self.takes_range = self._tries_range(linear.in_features)

    def of_image(self, x: torch.Tensor, post_op: PostOp) -> torch.Tensor:
        finite = torch.nan_to_num(x.float())
        product: torch.Tensor = torch.ops.quantized.linear_dynamic(finite, self.weight, self.fewer_bits)
        output = product if self.bias is None else product.add_(self.bias)
        return _activated(output, post_op).to(x.dtype)

    def of_rows(self, x: torch.Tensor) -> torch.Tensor:
        most = MOST // 2 if self.fewer_bits else MOST
        rows, scales = _normalized(x, most)
        product = self._in_range(rows, most) if self.takes_range else self._with_bounds(rows, most)
        return _rescaled(product, scales, self.bias).to(x.dtype)

    def _in_range(self, rows: torch.Tensor, most: int) -> torch.Tensor:
        """Products of rows, each number of which is rounded, and is between -most and most."""
        product: torch.Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows, 1.0, most + 1, self.weight
        )
        return product

    def _with_bounds(self, rows: torch.Tensor, most: int) -> torch.Tensor:
        """The same, where the library takes no range: it finds the same one in every call, by one more row."""
        bounds = torch.full((1, rows.shape[1]), float(most))
        bounds[0, 0] = -most
        product = torch.ops.quantized.linear_dynamic(torch.cat([rows, bounds]), self.weight, self.fewer_bits)
        return product[:-1]

    def _tries_range(self, in_features: int) -> bool:
        """Whether the library, of which PyTorch may have several, has products in a given range."""
        try:
            self._in_range(torch.zeros(1, in_features), MOST)
        except (AttributeError, RuntimeError, NotImplementedError):  # missing, or refuses
            return False
        return True

    def plain(self) -> torch.Tensor:
        stored, _ = torch.ops.quantized.linear_unpack(self.weight)
        weight: torch.Tensor = stored.dequantize()
        return weight


class SmallDynamicWeight(DynamicWeight):
    """The same with activations of seven bits."""

    fewer_bits = True


KERNELS: Mapping[str, type[Int8Weight]] = MappingProxyType(
    {
        "onednn": OneDnnWeight,
        "onednn-7bit": SmallOneDnnWeight,
        "dynamic": DynamicWeight,
        "dynamic-7bit": SmallDynamicWeight,
    }
)
"""Name of a kernel → its weights."""

LIBRARIES = (("onednn", "onednn-7bit"), ("dynamic", "dynamic-7bit"))
"""The kernels of each library; the first one that is exact is used."""


class QuantizedLinear(ArrangedLinear):
    """A linear layer with int8 weights, perhaps with a fused activation: [*, in] to [*, out], in the input's dtype.

    Args:
        weight: the weights.
        post_op: the activation, only with `by_image`.
        by_image: inputs are [images, n, in], and each image has one scale; else each row has.
    """

    def __init__(self, weight: Int8Weight, post_op: PostOp = NO_POST_OP, by_image: bool = False) -> None:
        super().__init__()
        self.weight, self.post_op, self.by_image = weight, post_op, by_image

    def product(self, x: torch.Tensor) -> torch.Tensor:
        if self.by_image:
            images = x.reshape(-1, *x.shape[-2:]).contiguous()
            output = torch.cat([self.weight.of_image(image, self.post_op) for image in images])
        else:
            output = self.weight.of_rows(x.reshape(-1, x.shape[-1]))
        return output.view(*x.shape[:-1], -1)

    def plain(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.weight.plain(), self.weight.bias


def quantized_weight(linear: nn.Linear, largest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights as int8 from -largest to largest [out, in], and the scale of each channel, fp32 [out]."""
    scales = torch.empty(linear.out_features)
    quantized = torch.empty(linear.weight.shape, dtype=torch.int8)
    for channels in torch.arange(linear.out_features).split(CHANNELS_AT_ONCE):
        weight = linear.weight.detach()[channels].float()
        of_channels = weight.abs().amax(1).clamp(min=SMALLEST) / largest
        scales[channels] = of_channels
        rounded = weight.div_(of_channels[:, None]).round_()
        quantized[channels] = rounded.clamp_(-largest, largest).to(torch.int8)
    return quantized, scales


@cache
def available_kernels() -> tuple[str, ...]:
    """The kernels that this PyTorch has for this processor, tried with the largest numbers there are."""
    first = (next(filter(is_exact, names), None) for names in LIBRARIES)
    return tuple(name for name in first if name is not None)


def is_exact(name: str) -> bool:
    """Whether a kernel runs here and multiplies the largest numbers without cutting them off."""
    linear = nn.Linear(64, 32, bias=False)
    nn.init.ones_(linear.weight)
    try:
        with torch.inference_mode():
            weight = KERNELS[name](linear)
            return all(_agrees(weight, torch.ones(rows, 64)) for rows in PROBE_ROWS)
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):  # missing, or refuses
        return False


def check_available() -> None:
    """Raises UsageError if this PyTorch has no int8 kernel for this processor."""
    if not available_kernels():
        raise UsageError(
            f"--dtype int8 needs quantised linear layers, which PyTorch {torch.__version__} does not have here",
            "Use --dtype auto, or another build of PyTorch.",
        )


def _agrees(weight: Int8Weight, x: torch.Tensor) -> bool:
    """Whether both products of a weight of ones are the sum of each row, within the error of quantising."""
    sums = x.sum(1, keepdim=True).expand(-1, weight.out_features)
    given = (weight.of_rows(x), weight.of_image(x, NO_POST_OP))
    return all(torch.allclose(output, sums, rtol=0.02) for output in given)


def _normalized(x: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A copy of rows in fp32, each divided by a scale [n, 1] so that its largest magnitude is `most`; and the scales.

    Rows that are not finite give numbers that mean nothing; they do not touch other rows.
    """
    rows = x.to(torch.float32, copy=True)
    largest = torch.maximum(rows.amax(-1, keepdim=True), -rows.amin(-1, keepdim=True)).clamp_(min=SMALLEST_ROW)
    rows.mul_(most / largest)
    if not float(largest.sum()) < float("inf"):
        rows.nan_to_num_(0.0, 0.0, 0.0)
    return rows, largest.div_(most)


def _last_bytes(rounded: torch.Tensor) -> torch.Tensor:
    """What was added to ROUNDER, as uint8, in a third of the time that a conversion from fp32 takes."""
    return rounded.view(torch.int32).to(torch.uint8)


def _rescaled(product: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """What rows gave after `_normalized`, as they would have given without it, with the bias; in place."""
    product.mul_(scales)
    return product if bias is None else product.add_(bias)


def _activated(output: torch.Tensor, post_op: PostOp) -> torch.Tensor:
    name, algorithm = post_op
    if name == "gelu":
        return F.gelu(output, approximate=algorithm)
    return output.relu_() if name == "relu" else output
