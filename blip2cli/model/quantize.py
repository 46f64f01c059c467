"""int8: dynamic quantisation of linear layers on the CPU, bitsandbytes LLM.int8 on CUDA."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from blip2cli.errors import CheckpointError


def bitsandbytes_config() -> Any:
    """LLM.int8 as the model's documentation has it (not measured: no GPU was at hand)."""
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise CheckpointError("--dtype int8 on CUDA needs bitsandbytes", "pip install 'blip2cli[int8]'")
    return BitsAndBytesConfig(load_in_8bit=True)


def quantize_linears(model: nn.Module) -> None:
    """Replace every linear layer by dynamic int8, per channel, one layer at a time in place."""
    from torch.ao.nn.quantized.dynamic import Linear
    from torch.ao.quantization import per_channel_dynamic_qconfig

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch announces the end of this interface at every layer
        parents = [module for module in model.modules() if type(module) is not nn.Linear]  # or all weights would stay
        for parent in parents:
            for name, child in list(parent.named_children()):
                if type(child) is nn.Linear:
                    prepared: Any = child.to(torch.float32)
                    prepared.qconfig = per_channel_dynamic_qconfig
                    setattr(parent, name, Linear.from_float(prepared))
