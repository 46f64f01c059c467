"""Devices by the names that options give them: which ones exist, and what `auto` means."""

from __future__ import annotations

import torch

from blip2cli.errors import UsageError
from blip2cli.settings import check_device, devices_named


def device_named(device: str) -> torch.device:
    """The device of --device. Raises UsageError if it does not exist."""
    if device == "auto":
        return torch.device(_fastest())
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
    """The devices of --device-map auto. Raises UsageError if there are fewer than two."""
    count = torch.cuda.device_count()
    if count < 2:
        raise UsageError(
            f"--device-map auto is for several CUDA devices, and this PyTorch sees {count or 'none'}", "Leave it out."
        )
    return [torch.device("cuda", number) for number in range(count)]


def devices_of(devices: str) -> list[torch.device]:
    """The devices of --devices, one for each replica.

    Raises UsageError if one does not exist.
    """
    named = devices_named(devices)
    if named != ["all"]:
        return [device_named(name) for name in named]
    if not torch.cuda.is_available():
        raise UsageError("--devices all: this PyTorch sees no CUDA device", "Use --devices cpu:N, or a CUDA build.")
    return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]


def _fastest() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
