"""Names of devices, as options have them; whether this machine has such a device is not
asked here."""

from __future__ import annotations

import re

from blip2cli.errors import UsageError

MOST_REPLICAS = 1024
"""Replicas on one machine."""


def check_device(device: str) -> str:
    """The name of a device, which need not exist here.

    Raises UsageError for other texts.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,4})?", device, re.ASCII):
        raise UsageError(f"--device {device} is not a device", "Use auto, cpu, cuda, cuda:N or mps.")
    return device


def devices_named(devices: str) -> list[str]:
    """The devices of --devices, one for each replica; ["all"] for all.

    Raises UsageError.
    """
    if devices == "all":
        return ["all"]
    if match := re.fullmatch(r"cpu:(\d{1,4})", devices):
        if not 1 <= int(match[1]) <= MOST_REPLICAS:
            raise UsageError(f"--devices {devices} asks for {int(match[1])} replicas", f"Give 1 to {MOST_REPLICAS}.")
        return ["cpu"] * int(match[1])
    named = [name.strip() for name in devices.split(",")]
    if not all(re.fullmatch(r"cuda:\d{1,4}", name) for name in named):
        raise UsageError(
            f"--devices {devices} is not a list of devices", "For example: cuda:0,cuda:1, or all, or cpu:4."
        )
    if len(set(named)) < len(named):
        raise UsageError(f"--devices {devices} names a device twice", "A GPU holds one replica.")
    return named
