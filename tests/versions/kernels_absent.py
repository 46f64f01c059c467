"""PyTorch as if some of what int8 uses were not in it: what a variable of the environment names is taken away.

`make test-int8` runs tests so. Only the process of the tests is changed, not those that they start.
"""

import os
import sys
from importlib.machinery import ModuleSpec

import torch

VARIABLE = "BLIP2_TEST_WITHOUT"
"""Names what is absent: one of ABSENT."""

TORCH_AO = ("torch.ao", "torch.quantization", "torch.nn.quantized", "torch.nn.quantizable", "torch.nn.qat")

OPERATORS = {
    "onednn": ("qlinear_prepack", "qlinear_pointwise"),
    "quantized": ("linear_prepack", "linear_dynamic", "linear_with_input_q_dq_qweight_dq_output_fp32"),
}
"""Library → the operators of it that int8 uses."""

ABSENT: dict[str, tuple[str, ...]] = {"torch.ao": (), "onednn": ("onednn",), "int8": ("onednn", "quantized")}
"""What may be absent → the libraries whose operators go."""


class Removed:
    """Finds none of the modules of torch.ao."""

    def find_spec(self, name: str, *others: object) -> ModuleSpec | None:
        if name.startswith(TORCH_AO):
            raise ModuleNotFoundError(f"{name} was removed", name=name)
        return None


def take_away() -> str:
    """Take away what the environment says; returns its name, empty if nothing is to be absent."""
    named = os.environ.get(VARIABLE, "")
    if not named:
        return ""
    for library in ABSENT[named]:
        for operator in OPERATORS[library]:
            setattr(getattr(torch.ops, library), operator, _missing)
    if named == "torch.ao":
        _remove_torch_ao()
    return named


def _missing(*given: object) -> None:
    raise AttributeError("the operator is not in this PyTorch")


def _remove_torch_ao() -> None:
    for name in [name for name in sys.modules if name.startswith(TORCH_AO)]:
        del sys.modules[name]
    for name in ("ao", "quantization"):
        delattr(torch, name)
    sys.meta_path.insert(0, Removed())  # type: ignore[arg-type]  # the other methods of a finder have defaults
