"""Packed linear layers in bf16, and replacing layers together with the activation that follows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from blip2cli.model.checkpoint import packing, precision
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.checkpoint.linears import NO_POST_OP, PostOp, replace_linears
from blip2cli.model.checkpoint.load import load_weights
from blip2cli.settings import ModelSettings

ACTIVATIONS = [(NO_POST_OP, nn.Identity()), (("relu", "none"), nn.ReLU()), (("gelu", "none"), nn.GELU())]


def layer(bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(96, 48, bias=bias)


def needs_packing(dtype: torch.dtype) -> None:
    """Skip where layers of that dtype cannot be packed."""
    if not packing.is_available(dtype):
        pytest.skip("this processor does not have the instructions, or this PyTorch has no oneDNN")


def difference(given: torch.Tensor, expected: torch.Tensor) -> float:
    return float((given.float() - expected.float()).norm() / expected.float().norm())


@pytest.mark.parametrize(("post_op", "activation"), ACTIVATIONS)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-6), (torch.bfloat16, 0.01)])
def test_packed_layers_compute_the_same(
    post_op: PostOp, activation: nn.Module, dtype: torch.dtype, most: float
) -> None:
    needs_packing(dtype)
    linear, x = layer().to(dtype), torch.randn(2, 5, 96).to(dtype)
    with torch.inference_mode():
        assert difference(packing.PackedLinear(linear, post_op)(x), activation(linear(x))) < most


@pytest.mark.parametrize(("post_op", "activation"), ACTIVATIONS)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_gradients_flow_through_packed_layers_to_their_input(
    post_op: PostOp, activation: nn.Module, dtype: torch.dtype, most: float
) -> None:
    needs_packing(dtype)
    linear, x = layer().to(dtype), torch.randn(2, 5, 96).to(dtype).requires_grad_()
    packed = packing.PackedLinear(linear, post_op)
    weights = torch.randn(2, 5, 48)
    gradients = []
    for output in (packed(x), activation(linear(x))):
        gradients += torch.autograd.grad((output.float() * weights).sum(), x)
    assert gradients[0].dtype == dtype and difference(*gradients) < most


def test_an_activation_is_fused_only_where_it_is_known() -> None:
    class Blip2MLP(nn.Module):
        def __init__(self, activation: nn.Module) -> None:
            super().__init__()
            self.fc1, self.fc2, self.activation_fn = nn.Linear(4, 4), nn.Linear(4, 4), activation

    made = []

    def make(linear: nn.Linear, post_op: PostOp) -> nn.Module:
        made.append(post_op)
        return nn.Identity()

    known, unknown = Blip2MLP(nn.GELU()), Blip2MLP(nn.SiLU())
    replace_linears(nn.ModuleList([known, unknown]), make)
    assert made == [("gelu", "none"), NO_POST_OP, NO_POST_OP, NO_POST_OP]
    assert type(known.activation_fn) is nn.Identity and type(unknown.activation_fn) is nn.SiLU


def test_packing_is_used_only_where_it_works(opt_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: packing.PackedLinear, linear: nn.Linear, post_op: PostOp = NO_POST_OP) -> None:
        raise RuntimeError("mkldnn_reorder_linear_weight: bf16 path needs the cpu support avx_ne_convert or avx512bw")

    monkeypatch.setattr(packing.PackedLinear, "__init__", refuse)
    available: Callable[[torch.dtype], bool] = packing.is_available.__wrapped__
    assert not available(torch.float32) and not available(torch.bfloat16)
    monkeypatch.setattr(packing, "is_available", available)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        settings: Any = ModelSettings(str(opt_checkpoint), dtype=name, device="cpu")
        model = load_weights(find_checkpoint(settings))
        assert {weight.dtype for weight in model.parameters()} == {dtype}
        with torch.inference_mode():
            assert model.vision_model(torch.rand(1, 3, 32, 32).to(dtype)).last_hidden_state.isfinite().all()


def test_fp32_is_packed_where_the_processor_has_avx2(opt_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    available: Callable[[torch.dtype], bool] = packing.is_available.__wrapped__
    monkeypatch.setattr(packing, "is_available", available)
    settings = ModelSettings(str(opt_checkpoint), dtype="fp32", device="cpu")
    packed = any(
        isinstance(module, packing.PackedLinear) for module in load_weights(find_checkpoint(settings)).modules()
    )
    assert packed == (torch.backends.mkldnn.is_available() and precision.has_instructions(["avx2"]))
    monkeypatch.setattr(precision, "instructions", lambda: frozenset({"sse4_1"}))
    assert not any(
        isinstance(module, packing.PackedLinear) for module in load_weights(find_checkpoint(settings)).modules()
    )


class OPTAttention(nn.Module):
    """Of the name, and with the layers, of one whose layers are joined."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = nn.Linear(8, 6), nn.Linear(8, 4, bias=bias), nn.Linear(8, 2)


class Counted(nn.Module):
    """A linear layer that counts its calls."""

    def __init__(self, linear: nn.Linear, post_op: PostOp) -> None:
        super().__init__()
        self.linear, self.calls = linear, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        output: torch.Tensor = self.linear(x)
        return output


def test_layers_of_one_input_are_computed_together() -> None:
    attention = OPTAttention()
    names = ("q_proj", "k_proj", "v_proj")
    separate = [getattr(attention, name) for name in names]
    replace_linears(attention, Counted)
    (counted,) = [module for module in attention.modules() if isinstance(module, Counted)]
    first, second = torch.randn(3, 8), torch.randn(2, 5, 8)
    for x, calls in ((first, 1), (second, 2), (second, 3)):
        for name, layer in zip(names, separate, strict=True):
            torch.testing.assert_close(getattr(attention, name)(x), layer(x))
        assert counted.calls == calls
    joined: Any = attention.q_proj
    assert joined.joined.input is None and not joined.joined.outputs, "nothing is kept"


def test_a_layer_of_joined_ones_may_be_given_another_input() -> None:
    attention = OPTAttention()
    q_proj, k_proj = attention.q_proj, attention.k_proj
    replace_linears(attention, Counted)
    first, second = torch.randn(3, 8), torch.randn(3, 8)
    torch.testing.assert_close(attention.q_proj(first), q_proj(first))
    torch.testing.assert_close(attention.k_proj(second), k_proj(second))
    torch.testing.assert_close(attention.q_proj(second), q_proj(second))
    torch.testing.assert_close(attention.q_proj(first), q_proj(first))


def test_layers_that_are_not_alike_stay_apart() -> None:
    attention = OPTAttention(bias=False)
    replace_linears(attention, Counted)
    assert len([module for module in attention.modules() if isinstance(module, Counted)]) == 3
