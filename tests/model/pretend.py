"""Devices that are not there: tensors on the CPU that say they are elsewhere, and may not meet in one operation."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

HERE, THERE = torch.device("cpu"), torch.device("cpu", 1)
"""PyTorch takes both for the same CPU; `Pretend` does not."""

MOVES = {torch.Tensor.to, torch.Tensor.cpu}


class Pretend(TorchFunctionMode):
    """Where this is active a tensor has the device that it was made on or moved to, as on CUDA.

    An operation on tensors of several devices raises, unless those on the CPU are scalars. `mixed` keeps what was
    raised, as decoding goes on when a batch fails. `moves` counts the tensors taken from one device to another.
    """

    def __init__(self) -> None:
        super().__init__()
        self.moves = 0
        self.mixed: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func == torch.Tensor.device.__get__:
            return device_of(args[0])
        given = list(tensors_in((args, kwargs)))
        if func in MOVES:
            return self.moved(func, *args, **kwargs)
        found = {device_of(tensor) for tensor in given if tensor.dim() or device_of(tensor) != HERE}
        if len(found) > 1:
            self.mixed.append(f"{func}: expected all tensors to be on the same device, found {found}")
            raise RuntimeError(self.mixed[-1])
        device = kwargs.get("device") or (found.pop() if found else HERE)
        result = func(*args, **kwargs)
        for tensor in tensors_in(result):
            place(tensor, torch.device(device))
        return result

    def moved(self, func: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        where = [value for value in (*args, *kwargs.values()) if isinstance(value, (str, torch.device))]
        where += [device_of(value) for value in args if isinstance(value, torch.Tensor)]
        device = HERE if func is torch.Tensor.cpu else torch.device(where[0]) if where else device_of(tensor)
        result: torch.Tensor = func(tensor, *args, **kwargs)
        if device == device_of(tensor):
            return place(result, device)
        self.moves += 1
        return place(result.clone() if result is tensor else result, device)


def device_of(tensor: torch.Tensor) -> torch.device:
    return tensor.__dict__.get("pretended", HERE)


def place(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    tensor.__dict__["pretended"] = device
    return tensor


def place_module(module: nn.Module, device: torch.device) -> None:
    for tensor in (*module.parameters(), *module.buffers()):
        place(tensor, device)


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, slice):
        yield from tensors_in((value.start, value.stop, value.step))
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
