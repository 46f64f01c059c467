"""Functions of tensors, called as they are or run as CUDA graphs: recorded once for each
shape, then replayed.

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
"""Calls before a function is recorded, in which libraries choose kernels and allocate
memory."""


class Runner(Protocol):
    """Runs functions.

    If shapes are `fixed`, callers pad their inputs so that there are few different
    shapes.
    """

    fixed: bool

    def run(self, name: Hashable, function: Function, *inputs: torch.Tensor) -> Tensors:
        """The function's outputs, which are valid until the next call with the same name.

        Until `forget`, functions that have the same name and inputs of the same shapes
        must do the same, in the same memory.
        """

    def forget(self) -> None:
        """Forget all recordings, because the memory that they use is about to be freed."""


class Eager:
    """Calls functions, with shapes that are not fixed: on a CPU every row takes time."""

    fixed = False

    def run(self, name: Hashable, function: Function, *inputs: torch.Tensor) -> Tensors:
        return function(*inputs)

    def forget(self) -> None:
        """There is nothing to forget."""


@dataclass(frozen=True)
class Recording:
    """A recorded function, which reads its inputs from fixed memory, and writes its
    outputs to fixed memory."""

    inputs: Tensors
    outputs: Tensors
    replay: Callable[[], Any]


class Graphs:
    """Records each function as a CUDA graph at its first call with inputs of some shapes,
    and replays it later.

    Functions that cannot be recorded are called. All recordings share one pool of memory,
    so the outputs of one must be used before another is run.
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
        """The recorded function; None if it cannot be recorded.

        Raises torch.OutOfMemoryError.
        """
        memory = tuple(tensor.to(self.device, copy=True) for tensor in inputs)
        try:
            return self.record(function, memory)
        except torch.OutOfMemoryError:
            self.forget()
            raise
        except RuntimeError as error:
            if _ran_out_of_memory(error):
                self.forget()
                raise torch.OutOfMemoryError(str(error)) from error
            logger.debug("%s cannot be recorded as a CUDA graph, and runs without one: %s", name, error)
            self.refused.add(name)
            return None

    def record(self, function: Function, inputs: Tensors) -> Recording:
        """Record a function with its inputs' memory.

        It is called a few times: what it then writes must do no harm.
        """
        current, aside = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                function(*inputs)
        current.wait_stream(aside)
        if self.pool is None:
            self.pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.device(self.device), torch.cuda.graph(graph, pool=self.pool, stream=aside):
                outputs = function(*inputs)
        finally:
            torch.cuda.set_stream(current)  # a recording that fails does not restore it
        return Recording(inputs, outputs, graph.replay)


def _ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, although the end of the recording failed after that, too."""
    while error is not None and not isinstance(error, torch.OutOfMemoryError):
        error = error.__context__
    return error is not None


def runner_for(devices: Sequence[torch.device]) -> Runner:
    """Graphs for one CUDA device; Eager for a model on several devices, or elsewhere."""
    if len(devices) == 1 and devices[0].type == "cuda":
        return Graphs(devices[0])
    if devices[0].type == "cuda":
        logger.debug("a model that is spread over several devices is not recorded as CUDA graphs")
    return Eager()


def to_device(values: Any, device: torch.device) -> torch.Tensor:
    """Numbers, or a tensor in the host's memory, as a tensor on a device, without waiting
    for the device."""
    tensor = torch.as_tensor(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class PendingTensors:
    """Tensors that are being copied from the device to the host."""

    def __init__(self, tensors: Tensors) -> None:
        self.arrived: Any = None
        if tensors[0].device.type != "cuda":
            self.tensors = tuple(tensor.to("cpu", copy=True) for tensor in tensors)
            return
        self.tensors = tuple(torch.empty_like(tensor, device="cpu", pin_memory=True) for tensor in tensors)
        for target, tensor in zip(self.tensors, tensors, strict=True):
            target.copy_(tensor, non_blocking=True)
        self.arrived = torch.cuda.Event()
        self.arrived.record(torch.cuda.current_stream(tensors[0].device))  # which need not be the current device

    def wait(self) -> Tensors:
        """The tensors in the host's memory, once they are copied."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.tensors


@dataclass(frozen=True)
class PendingRow:
    """One row of the first of such tensors."""

    tensors: PendingTensors
    at: int

    def wait(self) -> torch.Tensor:
        """The row in the host's memory, once it is copied."""
        return self.tensors.wait()[0][self.at]
