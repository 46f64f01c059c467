"""blip2 doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from blip2cli.cli.options import command_of
from blip2cli.settings import DEFAULT_MODEL, ModelName, ModelSettings, Opt, Options, check_device


@dataclass(frozen=True)
class DoctorOptions(Options):
    """The options of `blip2 doctor`."""

    model: ModelName = DEFAULT_MODEL
    device: Annotated[
        str, Opt("Where the self-test runs: auto, cpu, cuda, cuda:N or mps.", metavar="DEVICE", parse=check_device)
    ] = "auto"
    as_json: Annotated[bool, Opt("Write JSON lines, even to a terminal.", ("--json",))] = False


@command_of(DoctorOptions)
def doctor(options: DoctorOptions) -> None:
    """Check this machine: versions, devices, memory, cache, hub, and a self-test.

    [bold]blip2 doctor[/bold]
    """
    import sys

    from blip2cli.cli.failures import FAILED
    from blip2cli.commands.doctor import examine_machine

    settings = ModelSettings(options.model, device=options.device)
    if not examine_machine(settings, options.as_json or not sys.stdout.isatty()):
        raise typer.Exit(FAILED)
