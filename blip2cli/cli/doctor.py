"""blip2 doctor."""

from __future__ import annotations

from typing import Annotated

import typer

from blip2cli.settings import DEFAULT_MODEL, check_device


def doctor(
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", metavar="MODEL", envvar="BLIP2_MODEL", help="Hub id, local folder, or 'tiny' (bundled)."
        ),
    ] = DEFAULT_MODEL,
    device: Annotated[
        str,
        typer.Option(
            metavar="DEVICE", parser=check_device, help="Where the self-test runs: auto, cpu, cuda, cuda:N or mps."
        ),
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON lines, even to a terminal.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks, and messages for developers.")] = False,
) -> None:
    """Check this machine: versions, devices, memory, cache, hub, and a self-test.

    [bold]blip2 doctor[/bold]
    """
    import sys

    from blip2cli.cli.failures import reported

    with reported(debug):
        from blip2cli.commands.doctor import examine_machine
        from blip2cli.settings import ModelSettings

        if not examine_machine(ModelSettings(model, device=device), as_json or not sys.stdout.isatty()):
            raise typer.Exit(1)
