"""Linear layers in int8: every kernel that runs here, rows by themselves, and machines that have none."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from blip2cli.errors import UsageError
from blip2cli.model.blip2 import Blip2Model
from blip2cli.model.checkpoint import int8, kernel_choice
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.checkpoint.int8 import KERNELS, QuantizedLinear
from blip2cli.model.checkpoint.layers_used import layers_used
from blip2cli.model.checkpoint.linears import NO_POST_OP, PostOp
from blip2cli.model.checkpoint.load import load_weights
from blip2cli.records import Batch
from blip2cli.settings import ModelSettings
from tests.conftest import Typed

ACTIVATIONS = [(NO_POST_OP, nn.Identity()), (("relu", "none"), nn.ReLU()), (("gelu", "none"), nn.GELU())]
EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"


@pytest.fixture(params=list(KERNELS))
def kernel(request: pytest.FixtureRequest) -> str:
    """Each kernel that gives right results here; 7 bits do so on every processor."""
    if not int8.is_exact(request.param):
        pytest.skip(f"{request.param} is not exact on this processor")
    name: str = request.param
    return name


@pytest.fixture
def nothing_known() -> Iterator[None]:
    """Kernels are looked for again, before and after."""
    int8.available_kernels.cache_clear()
    yield
    int8.available_kernels.cache_clear()


def layer(bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(96, 48, bias=bias)


def quantized(kernel: str, by_image: bool, post_op: PostOp = NO_POST_OP, bias: bool = True) -> QuantizedLinear:
    return QuantizedLinear(KERNELS[kernel](layer(bias)), post_op, by_image)


def batch_of(pixels: torch.Tensor) -> Batch:
    """Images without rows, each of which is new."""
    return Batch((), pixels, (), (), tuple(bytes(image.flatten()[:64].tolist()) for image in pixels))


def difference(given: torch.Tensor, expected: torch.Tensor) -> float:
    return float((given.float() - expected.float()).norm() / expected.float().norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_flow_through_int8_layers_to_their_input(kernel: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(96, 48), torch.randn(2, 5, 96, dtype=dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad(QuantizedLinear(KERNELS[kernel](linear))(x).float().sum(), x)
    expected = linear.weight.sum(0).expand(2, 5, 96)
    assert gradient.dtype == dtype and (gradient - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize(("post_op", "activation"), ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_layers_of_images_are_close(
    kernel: str, post_op: PostOp, activation: nn.Module, dtype: torch.dtype, bias: bool
) -> None:
    x = torch.randn(2, 5, 96)
    before = x.clone()
    with torch.inference_mode():
        given = quantized(kernel, True, post_op, bias)(x.to(dtype))
        expected = activation(layer(bias)(x))
    assert given.shape == expected.shape and given.dtype == dtype
    assert difference(given, expected) < 0.025
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(96,), (1, 96), (7, 96), (2, 5, 96)])
def test_layers_of_rows_are_close(kernel: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = torch.randn(*shape) * torch.logspace(-3, 3, shape[0] if len(shape) > 1 else 1).view(-1, *[1] * (len(shape) - 1))
    before = x.clone()
    with torch.inference_mode():
        given, expected = quantized(kernel, False)(x.to(dtype)), layer()(x)
    assert given.shape == expected.shape and given.dtype == dtype
    assert difference(given, expected) < 0.025
    assert torch.equal(x, before)


@pytest.mark.parametrize("by_image", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_or_image_gives_the_same_bytes_alone(kernel: str, by_image: bool, dtype: torch.dtype) -> None:
    x = (torch.randn(6, 9, 96) * torch.logspace(-2, 2, 6).view(-1, 1, 1)).to(dtype)
    linear = quantized(kernel, by_image)
    together = linear(x)
    assert all(torch.equal(linear(x[at : at + 1]), together[at : at + 1]) for at in range(len(x)))
    if not by_image:
        flat = x.flatten(0, 1)
        assert all(torch.equal(linear(flat[at]), together.flatten(0, 1)[at]) for at in range(len(flat)))


@pytest.mark.parametrize("by_image", [True, False])
@pytest.mark.parametrize("value", [0.0, 2.5, -2.5, 1e-38, 1e30])
def test_inputs_of_one_value(kernel: str, by_image: bool, value: float) -> None:
    x, linear = torch.full((1, 3, 96), value), quantized(kernel, by_image)
    with torch.inference_mode():
        torch.testing.assert_close(linear(x), layer()(x), atol=0.05 * max(abs(value), 1), rtol=0)


@pytest.mark.parametrize("stray", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_row(kernel: str, stray: float) -> None:
    x = torch.randn(3, 96)
    expected = quantized(kernel, False)(x)
    x[1, 1] = stray
    given = quantized(kernel, False)(x)
    assert torch.equal(given[[0, 2]], expected[[0, 2]])
    assert quantized(kernel, True)(x[None]).shape == (1, 3, 48)


def test_every_kernel_is_close_to_fp32(opt_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    monkeypatch.setenv(kernel_choice.OVERRIDE, kernel)
    checkpoint = find_checkpoint(ModelSettings(model=str(opt_checkpoint), dtype="int8", device="cpu"))
    given = load_weights(checkpoint)
    assert not [name for name, child in given.named_modules() if type(child) is nn.Linear]
    layers = [child for child in given.modules() if isinstance(child, QuantizedLinear)]
    assert {type(child.weight) for child in layers} == {KERNELS[kernel]}
    assert layers_used(given) == f"{len(layers)} int8 {kernel}"
    assert {weight.dtype for weight in given.parameters()} == {checkpoint.dtype}
    expected = load_weights(find_checkpoint(ModelSettings(model=str(opt_checkpoint), dtype="fp32", device="cpu")))
    pixels = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        ours = given.vision_model(pixels.to(checkpoint.dtype)).last_hidden_state
        assert difference(ours, expected.vision_model(pixels).last_hidden_state) < 0.05


def test_an_image_gives_the_same_features_alone(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernel_choice.OVERRIDE, kernel)
    model = Blip2Model(find_checkpoint(ModelSettings("tiny", dtype="int8", device="cpu")), 8)
    pixels = torch.randint(0, 256, (5, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    together = model.query_output(batch_of(pixels))
    for at in range(len(pixels)):
        model.forget()
        alone = model.query_output(batch_of(pixels[at : at + 1]))
        assert torch.equal(torch.as_tensor(alone[0]), torch.as_tensor(together[at]))


def test_sums_that_are_cut_off_are_found_out(monkeypatch: pytest.MonkeyPatch, nothing_known: None) -> None:
    """As on a processor without AVX512-VNNI, AVX-VNNI or AMX, whatever it says that it has."""
    if not int8.is_exact("onednn-7bit"):
        pytest.skip("this PyTorch does not have oneDNN's quantised operators")
    product = int8.OneDnnWeight._product

    def saturating(weight: int8.OneDnnWeight, quantized: torch.Tensor, *others: object) -> torch.Tensor:
        most = int(quantized.max()) * weight.largest * 2
        return product(weight, quantized, *others) * min(1.0, 32767 / most)  # type: ignore[arg-type]

    monkeypatch.setattr(int8.OneDnnWeight, "_product", saturating)
    assert not int8.is_exact("onednn") and int8.is_exact("onednn-7bit")
    assert "onednn-7bit" in int8.available_kernels() and "onednn" not in int8.available_kernels()


def test_where_eight_bits_are_exact_seven_are_not_offered() -> None:
    names = int8.available_kernels()
    assert not [name for name in names if f"{name}-7bit" in names]


def refuse(*given: object) -> None:
    raise RuntimeError("the operator refuses")


def without(monkeypatch: pytest.MonkeyPatch, *libraries: type[int8.Int8Weight]) -> None:
    for library in libraries:
        monkeypatch.setattr(library, "__init__", refuse)


def test_without_onednn_the_other_library_is_used(
    typed: Callable[..., Typed], monkeypatch: pytest.MonkeyPatch, nothing_known: None
) -> None:
    without(monkeypatch, int8.OneDnnWeight)
    if not int8.available_kernels():
        pytest.skip("this PyTorch has no other int8 kernel")
    assert all(name.startswith("dynamic") for name in int8.available_kernels())
    ran = typed("caption", str(EXAMPLES / "red-circle.png"), "--dtype", "int8", "--device", "cpu")
    assert ran.code == 0 and ran.rows[0]["caption"] == "a red circle"


def test_without_any_kernel_int8_is_refused_in_two_lines(
    typed: Callable[..., Typed], monkeypatch: pytest.MonkeyPatch, nothing_known: None
) -> None:
    without(monkeypatch, int8.OneDnnWeight, int8.DynamicWeight)
    with pytest.raises(UsageError, match="int8"):
        int8.check_available()
    for more in ([], ["--dry-run"]):
        ran = typed("caption", str(EXAMPLES / "red-circle.png"), "--dtype", "int8", "--device", "cpu", *more)
        assert ran.code == 2
        lines = ran.err.strip().splitlines()
        assert len(lines) == 2 and "int8" in lines[0] and "--dtype auto" in lines[1]


@pytest.mark.int8
@pytest.mark.parametrize("engine", ["qnnpack", "fbgemm", "onednn"])
def test_the_other_library_may_be_any_that_pytorch_has(engine: str, nothing_known: None) -> None:
    """On Arm it is QNNPACK; which runs on other processors, too."""
    engines = torch.backends.quantized
    if engine not in engines.supported_engines:
        pytest.skip(f"this PyTorch does not have {engine}")
    before = engines.engine
    try:
        engines.engine = engine
        names = [name for name in int8.available_kernels() if name.startswith("dynamic")]
        assert names
        x = torch.randn(7, 96)
        with torch.inference_mode():
            expected = layer()(x)
            assert difference(quantized(names[0], False)(x), expected) < 0.025
            assert difference(quantized(names[0], True)(x[None]), expected[None]) < 0.025
    finally:
        engines.engine = before


REMOVED = """
import sys
import torch  # which imports some of it, as long as there is any
class Removed:
    def find_spec(self, name, *others):
        if name.startswith(GONE):
            raise ModuleNotFoundError(f"{name} was removed", name=name)
GONE = ("torch.ao", "torch.quantization", "torch.nn.quantized", "torch.nn.quantizable", "torch.nn.qat")
for name in [name for name in sys.modules if name.startswith(GONE)]:
    del sys.modules[name]
del torch.ao, torch.quantization
sys.meta_path.insert(0, Removed())
from blip2cli.cli import main
main()
"""
"""A program that runs `blip2` with a PyTorch from which torch.ao was removed."""


def test_nothing_needs_torch_ao(tmp_path: Path) -> None:
    command = [sys.executable, "-c", REMOVED, "caption", str(EXAMPLES / "red-circle.png"), "--model", "tiny"]
    ran = subprocess.run([*command, "--dtype", "int8", "--device", "cpu"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert '"a red circle"' in ran.stdout
