"""blip2 models."""

from __future__ import annotations

from typing import Annotated

import typer


def models(
    model: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...", help="Local folders, cached hub ids or 'tiny', to show in detail.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON lines, even to a terminal.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks, and messages for developers.")] = False,
) -> None:
    """List known and cached checkpoints, the memory they take, and which fit this machine.

    [bold]blip2 models[/bold]
    """
    import sys

    from blip2cli.cli.failures import reported

    with reported(debug):
        from blip2cli.commands.models import show

        if not show(model or (), as_json or not sys.stdout.isatty()):
            raise typer.Exit(1)
