"""blip2 models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from blip2cli.cli.options import command_of
from blip2cli.settings import Arg, Opt, Options


@dataclass(frozen=True)
class ModelsOptions(Options):
    """The options of `blip2 models`."""

    models: Annotated[
        tuple[str, ...], Arg("[MODEL]...", "Local folders, cached hub ids or 'tiny', to show in detail.")
    ] = ()
    as_json: Annotated[bool, Opt("Write JSON lines, even to a terminal.", ("--json",))] = False


@command_of(ModelsOptions)
def models(options: ModelsOptions) -> None:
    """List known and cached checkpoints, the memory they take, and which fit this machine.

    [bold]blip2 models[/bold]
    """
    import sys

    from blip2cli.cli.failures import FAILED
    from blip2cli.commands.models import show

    if not show(options.models, options.as_json or not sys.stdout.isatty()):
        raise typer.Exit(FAILED)
