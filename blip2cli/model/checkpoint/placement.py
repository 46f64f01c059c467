"""One model on several devices (`--device-map auto`): which layer of the language model
is on which.

Everything but the language model's layers (image side, embeddings, head) stays together
on the first device; so do the layers' inputs and the logits. Layers keep their order. Not
measured: no GPU was available.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from blip2cli.errors import CheckpointError
from blip2cli.model.checkpoint.size import count_weights, shown_bytes, weight_shapes
from blip2cli.model.families import FAMILIES
from blip2cli.model.memory import free_bytes

if TYPE_CHECKING:
    from blip2cli.model.checkpoint.record import Checkpoint

FULLEST = 90
"""Percent of a device's free memory that weights may fill; the rest is for what is
computed with them."""

Placement = dict[str, torch.device]
"""The name of a layer or another part → its device."""


def place_layers(checkpoint: Checkpoint) -> Placement:
    """The devices of the language model's layers, in order.

    Raises CheckpointError if there is not enough room.
    """
    shapes = weight_shapes(checkpoint.folder)

    def size_of(prefix: str) -> int:
        part = {name: shape for name, shape in shapes.items() if name.startswith(prefix)}
        return count_weights(part).bytes(checkpoint.precision, checkpoint.dtype.itemsize)

    names = layer_names(checkpoint.config)
    total = size_of("")
    layers = [size_of(f"{name}.") for name in names]
    free = [free_bytes(device) for device in checkpoint.devices]
    numbers = assign(total - sum(layers), layers, free)
    if numbers is None:
        raise CheckpointError(
            f"{checkpoint.name} takes {shown_bytes(total)} in {checkpoint.precision}, too much for the "
            f"{' + '.join(map(shown_bytes, free))} that are free on {', '.join(map(str, checkpoint.devices))}",
            "Use --dtype int8 or int4, or free the GPUs; layers are not placed on the CPU or the disk.",
        )
    return {name: checkpoint.devices[number] for name, number in zip(names, numbers, strict=True)}


def assign(rest: int, layers: Sequence[int], free: Sequence[int]) -> list[int] | None:
    """The number of each layer's device, in order, so that all devices are filled to
    about the same share.

    Args:
        rest: bytes of what stays together on the first device.
        layers: bytes of each layer.
        free: bytes that are free on each device.

    None if it does not fit into FULLEST percent of the devices.
    """
    for percent in range(1, FULLEST + 1):
        numbers = _assign_within(rest, layers, [size * percent // 100 for size in free])
        if numbers is not None:
            return numbers
    return None


def _assign_within(rest: int, layers: Sequence[int], room: Sequence[int]) -> list[int] | None:
    """The same, with so many bytes on each device."""
    left = [room[0] - rest, *room[1:]]
    numbers, device = [], 0
    for size in layers:
        while device < len(left) and left[device] < size:
            device += 1
        if device == len(left):
            return None
        left[device] -= size
        numbers.append(device)
    return numbers if left[0] >= 0 else None


def layer_names(config: Any) -> list[str]:
    """The names of the language model's layers, in the order in which they run."""
    return FAMILIES[config.text_config.model_type].layer_names(config.text_config)


def device_map(config: Any, layers: Placement, first: torch.device) -> Placement:
    """For transformers' from_pretrained: the layers' devices, and the first device for
    all parts without layers.

    No part contains another: accelerate would move all of the outer one to its device
    before the inner ones.
    """
    from transformers import Blip2ForConditionalGeneration

    with torch.device("meta"):
        model = Blip2ForConditionalGeneration(config)
    return layers | dict.fromkeys(_without_layers(model, layers), first)


def _without_layers(module: nn.Module, layers: Placement, prefix: str = "") -> Iterator[str]:
    """The names of the largest parts of a module that contain no layer."""
    yield from (prefix + name for name, _ in module.named_parameters(recurse=False))
    for name, child in module.named_children():
        full = prefix + name
        if any(layer.startswith(f"{full}.") for layer in layers):
            yield from _without_layers(child, layers, f"{full}.")
        elif full not in layers:
            yield full


def move_inputs_of_parts(model: Any, parts: Placement) -> None:
    """Make each part of a model that was loaded onto several devices move its inputs to
    its own device.

    This replaces accelerate's hooks, which do so at every linear layer, and may leave the
    query tokens on any of the devices. Inside a layer nothing is moved: decoding does it.
    Logits and tokens cannot be on different devices, as in transformers#26806: what
    follows the last layer is on the first device with all the rest.
    """
    from accelerate.hooks import remove_hook_from_module

    remove_hook_from_module(model, recurse=True)
    model.query_tokens = nn.Parameter(model.query_tokens.to(parts["query_tokens"]), requires_grad=False)
    for name, device in parts.items():
        if name != "query_tokens":
            model.get_submodule(name).register_forward_pre_hook(partial(_move_inputs, device), with_kwargs=True)


def _move_inputs(
    device: torch.device, part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    moved_kwargs = {name: _moved(value, device) for name, value in kwargs.items()}
    return tuple(_moved(value, device) for value in args), moved_kwargs


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value


def device_of(layer: nn.Module) -> torch.device:
    """The device that a layer is on: the CPU if nothing in it has parameters, as packed
    and quantised linear layers have none."""
    return next((weight.device for weight in layer.parameters()), torch.device("cpu"))
