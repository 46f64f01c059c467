"""Devices by the names that options give them: which are there, and which `auto` is."""

from __future__ import annotations

import torch

from blip2cli.errors import UsageError
from blip2cli.settings import check_device, devices_named


def device_named(device: str) -> torch.device:
    if device == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    chosen = torch.device(check_device(device))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"--device {device}: this PyTorch sees no CUDA device", "Use --device cpu, or install a CUDA build."
        )
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {device}: there are {torch.cuda.device_count()} CUDA devices", "The first is cuda:0."
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: this PyTorch has no MPS", "Use --device cpu.")
    return chosen


def every_cuda_device() -> list[torch.device]:
    """The devices of --device-map auto. Raises UsageError where there are not several."""
    count = torch.cuda.device_count()
    if count < 2:
        raise UsageError(
            f"--device-map auto is for several CUDA devices, and this PyTorch sees {count or 'none'}", "Leave it out."
        )
    return [torch.device("cuda", number) for number in range(count)]


def devices_of(devices: str) -> list[torch.device]:
    """The devices of --devices, one for each replica. Raises UsageError where one is not there."""
    named = devices_named(devices)
    if named != ["all"]:
        return [device_named(name) for name in named]
    if not torch.cuda.is_available():
        raise UsageError("--devices all: this PyTorch sees no CUDA device", "Use --devices cpu:N, or a CUDA build.")
    return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
