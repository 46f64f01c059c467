"""The command line: one file for each subcommand, with options made from the settings records. No other logic."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from blip2cli import __version__
from blip2cli.cli import (
    bench,
    caption,
    chat,
    classify,
    dedup,
    doctor,
    embed,
    match,
    models,
    report,
    score,
    search,
    select,
    vqa,
)
from blip2cli.cli.failures import INTERRUPTED, MISTYPED, WRONG_USAGE, show_mistyped
from blip2cli.cli.usage import PlainCommand, PlainGroup
from blip2cli.cli.values import WrongValue, spelled
from blip2cli.host.terminal import guard_streams, show_error

app = typer.Typer(
    name="blip2",
    help="BLIP-2 over image collections: captions, answers, features, matching and search.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    cls=PlainGroup,
)
COMMANDS: tuple[Callable[..., None], ...] = (
    caption.caption,
    vqa.vqa,
    embed.embed,
    match.match,
    classify.classify,
    chat.chat,
    search.search,
    select.select,
    dedup.dedup,
    score.score,
    report.report,
    models.models,
    doctor.doctor,
    bench.bench,
)
"""The subcommands, in the order of the help."""

for function in COMMANDS:
    app.command(function.__name__, cls=PlainCommand)(spelled(function))


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"blip2 {__version__}")
        raise typer.Exit


@app.callback()
def blip2(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """BLIP-2 over image collections: captions, answers, features, matching and search."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """The console script."""
    guard_streams()
    try:
        sys.exit(app(standalone_mode=False))
    except (KeyboardInterrupt, typer.Abort):  # outside a command, or while its end was told
        show_error("interrupted", "")
        sys.exit(INTERRUPTED)
    except MISTYPED as error:
        show_mistyped(error)
        sys.exit(WRONG_USAGE)
    except WrongValue as error:
        show_error(error.message, error.hint)
        sys.exit(WRONG_USAGE)
