"""Functions of tensors, run as they are or as CUDA graphs: recorded once for each shape, replayed in one launch.

Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

logger = logging.getLogger(__name__)

Tensors = tuple[torch.Tensor, ...]
Function = Callable[..., Tensors]

WARM_UP = 2
"""Calls before a function is recorded, in which libraries choose their kernels and take their memory."""


class Runner(Protocol):
    """Runs functions. Where shapes are `fixed`, callers pad what they give, so that there are few of them."""

    fixed: bool

    def run(self, name: Hashable, function: Function, *inputs: torch.Tensor) -> Tensors:
        """What the function gives for the inputs; it is good until the next call of the same name.

        Functions of one name that are given inputs of the same shapes do the same, in the same memory, until `forget`.
        """

    def forget(self) -> None:
        """Forget what is recorded: the memory it works on is going away."""


class Eager:
    """Calls functions. On a CPU every row costs, so shapes are what they are."""

    fixed = False

    def run(self, name: Hashable, function: Function, *inputs: torch.Tensor) -> Tensors:
        return function(*inputs)

    def forget(self) -> None:
        """There is nothing to forget."""


@dataclass(frozen=True)
class Recording:
    """A recorded function: it reads its inputs from, and writes its outputs to, memory that stays."""

    inputs: Tensors
    outputs: Tensors
    replay: Callable[[], Any]


class Graphs:
    """Records each function as a CUDA graph when it first comes with inputs of some shapes, and replays it later.

    What cannot be recorded is called as it is. All recordings share one pool of memory: what one gives is to be used
    before another one is run.
    """

    fixed = True

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.recordings: dict[Hashable, Recording] = {}
        self.refused: set[Hashable] = set()
        self.pool: Any = None

    def run(self, name: Hashable, function: Function, *inputs: torch.Tensor) -> Tensors:
        if name in self.refused:
            return function(*(tensor.to(self.device) for tensor in inputs))
        key = (name, *((tensor.shape, tensor.dtype) for tensor in inputs))
        recording = self.recordings.get(key)
        if recording is None:
            recording = self._recorded(name, function, inputs)
            if recording is None:
                return self.run(name, function, *inputs)
            self.recordings[key] = recording
        for memory, tensor in zip(recording.inputs, inputs, strict=True):
            memory.copy_(tensor, non_blocking=True)
        recording.replay()
        return recording.outputs

    def forget(self) -> None:
        self.recordings.clear()
        self.pool = None

    def _recorded(self, name: Hashable, function: Function, inputs: Sequence[torch.Tensor]) -> Recording | None:
        """The function, recorded; None where it cannot be. Raises torch.OutOfMemoryError."""
        memory = tuple(tensor.to(self.device, copy=True) for tensor in inputs)
        try:
            return self.record(function, memory)
        except torch.OutOfMemoryError:
            self.forget()
            raise
        except RuntimeError as error:
            logger.debug("%s cannot be recorded as a CUDA graph, and runs without one: %s", name, error)
            self.refused.add(name)
            return None

    def record(self, function: Function, inputs: Tensors) -> Recording:
        """Record a function over memory that stays. It is called a few times, so what it writes must harm nobody."""
        current, warm_up = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        warm_up.wait_stream(current)
        with torch.cuda.stream(warm_up):
            for _ in range(WARM_UP):
                function(*inputs)
        current.wait_stream(warm_up)
        if self.pool is None:
            self.pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.device(self.device), torch.cuda.graph(graph, pool=self.pool):
                outputs = function(*inputs)
        finally:
            torch.cuda.set_stream(current)  # which a recording that fails does not restore itself
        return Recording(inputs, outputs, graph.replay)


def runner_for(devices: Sequence[torch.device]) -> Runner:
    """Graphs on a CUDA device; a model that is spread over several, or lies elsewhere, runs as it is."""
    if len(devices) == 1 and devices[0].type == "cuda":
        return Graphs(devices[0])
    if devices[0].type == "cuda":
        logger.debug("a model that is spread over several devices is not recorded as CUDA graphs")
    return Eager()


def sent(values: Any, device: torch.device) -> torch.Tensor:
    """Numbers, or a tensor of the host, as a tensor on a device, without waiting for what the device is doing."""
    tensor = torch.as_tensor(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class OnTheWay:
    """Tensors on their way from the device to the host."""

    def __init__(self, tensors: Tensors) -> None:
        self.arrived: Any = None
        if tensors[0].device.type != "cuda":
            self.tensors = tuple(tensor.to("cpu", copy=True) for tensor in tensors)
            return
        self.tensors = tuple(torch.empty_like(tensor, device="cpu", pin_memory=True) for tensor in tensors)
        for target, tensor in zip(self.tensors, tensors, strict=True):
            target.copy_(tensor, non_blocking=True)
        self.arrived = torch.cuda.Event()
        self.arrived.record()

    def received(self) -> Tensors:
        """The tensors on the host, once they are there."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.tensors
