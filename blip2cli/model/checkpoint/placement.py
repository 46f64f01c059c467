"""One model over several devices (`--device-map auto`): which layer of the language model lies where.

All that is no layer of the language model (image side, embeddings, head) stays together on the first device, so what
the layers are given, and the logits, are there. Layers keep to their order. Not measured: no GPU was at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from blip2cli.errors import CheckpointError
from blip2cli.model.checkpoint.size import shapes, shown_bytes, weights_of
from blip2cli.model.families import FAMILIES
from blip2cli.model.memory import free_bytes

if TYPE_CHECKING:
    from blip2cli.model.checkpoint.load import Checkpoint

FULLEST = 90
"""Percent of a device's free memory that weights may fill; the rest is for what is computed with them."""

Placement = dict[str, torch.device]
"""A layer's name → the device that it lies on."""


def placed(checkpoint: Checkpoint) -> Placement:
    """Where the layers of a checkpoint's language model go, in order. Raises CheckpointError where there is no room."""
    names, named = layer_names(checkpoint.config), shapes(checkpoint.folder)

    def size(prefix: str) -> int:
        part = {weight: shape for weight, shape in named.items() if weight.startswith(prefix)}
        return weights_of(part).bytes(checkpoint.precision, checkpoint.dtype.itemsize)

    total, layers = size(""), [size(f"{name}.") for name in names]
    rooms = [free_bytes(device) for device in checkpoint.devices]
    numbers = place(total - sum(layers), layers, rooms)
    if numbers is None:
        raise CheckpointError(
            f"{checkpoint.name} takes {shown_bytes(total)} in {checkpoint.precision}, too much for the "
            f"{' + '.join(map(shown_bytes, rooms))} that are free on {', '.join(map(str, checkpoint.devices))}",
            "Use --dtype int8 or int4, or free the GPUs; layers are not placed on the CPU or the disk.",
        )
    return {name: checkpoint.devices[at] for name, at in zip(names, numbers, strict=True)}


def place(rest: int, layers: Sequence[int], rooms: Sequence[int]) -> list[int] | None:
    """For each layer, in order, the number of its device: all devices are filled to about the same share.

    Args:
        rest: bytes of what stays together on the first device.
        layers: bytes of each layer.
        rooms: bytes that are free on each device.

    None where FULLEST percent of the devices do not hold it.
    """
    for percent in range(1, FULLEST + 1):
        placed = _filled(rest, layers, [room * percent // 100 for room in rooms])
        if placed is not None:
            return placed
    return None


def _filled(rest: int, layers: Sequence[int], rooms: Sequence[int]) -> list[int] | None:
    left = [rooms[0] - rest, *rooms[1:]]
    placed, device = [], 0
    for size in layers:
        while device < len(left) and left[device] < size:
            device += 1
        if device == len(left):
            return None
        left[device] -= size
        placed.append(device)
    return placed if left[0] >= 0 else None


def layer_names(config: Any) -> list[str]:
    """The names of the language model's layers, in the order in which they run."""
    return FAMILIES[config.text_config.model_type].layer_names(config.text_config)


def device_map(config: Any, layers: Placement, first: torch.device) -> Placement:
    """For transformers' from_pretrained: the layers' devices, and the first one for all parts without layers.

    No part lies in another: accelerate would move all of the outer one to its device before the inner ones.
    """
    from transformers import Blip2ForConditionalGeneration

    with torch.device("meta"):
        model = Blip2ForConditionalGeneration(config)
    return layers | dict.fromkeys(_without_layers(model, layers), first)


def _without_layers(module: nn.Module, layers: Placement, prefix: str = "") -> Iterator[str]:
    """The names of the largest parts of a module that hold no layer."""
    yield from (prefix + name for name, _ in module.named_parameters(recurse=False))
    for name, child in module.named_children():
        full = prefix + name
        if any(layer.startswith(f"{full}.") for layer in layers):
            yield from _without_layers(child, layers, f"{full}.")
        elif full not in layers:
            yield full


def connect(model: Any, parts: Placement) -> None:
    """Make each part of a model that from_pretrained has spread move what it is given to its device.

    In place of accelerate's hooks, which do so at every linear layer, and leave the query tokens on any of the devices.
    What is called inside a layer moves nothing: decoding does it. Logits and tokens on different devices, which BLIP-2
    has failed of (transformers#26806), cannot be: what follows the last layer is on the first device with all the rest.
    """
    from accelerate.hooks import remove_hook_from_module

    remove_hook_from_module(model, recurse=True)
    model.query_tokens = nn.Parameter(model.query_tokens.to(parts["query_tokens"]), requires_grad=False)
    for name, device in parts.items():
        if name != "query_tokens":
            model.get_submodule(name).register_forward_pre_hook(partial(_bring, device), with_kwargs=True)


def _bring(
    device: torch.device, part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return tuple(_moved(arg, device) for arg in args), {name: _moved(arg, device) for name, arg in kwargs.items()}


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value


def device_of(layer: nn.Module) -> torch.device:
    """The device that a layer lies on."""
    return next(layer.parameters()).device
