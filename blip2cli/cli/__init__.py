"""The command line: one file for each subcommand, with options made from the settings records. No other logic."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from blip2cli import __version__
from blip2cli.cli.failures import INTERRUPTED, MISTYPED, WRONG_USAGE, show_mistyped
from blip2cli.cli.usage import ListedCommand, PlainCommand, PlainGroup
from blip2cli.cli.values import WrongValue, spelled
from blip2cli.host.imports import load_object
from blip2cli.host.terminal import guard_streams, show_error

COMMANDS = {
    "caption": "Write a caption for every image.",
    "vqa": "Answer questions about every image.",
    "embed": "Write features of every image, or of texts.",
    "match": "Score how well every image and its text, or several texts, match.",
    "classify": "Say which of several classes every image shows, without training.",
    "chat": "Ask questions about an image, in a conversation on a terminal or from stdin.",
    "search": "Find the images that best match a text or an image.",
    "select": "Select rows of results by a condition, or copy their images.",
    "dedup": "Find duplicates and near-duplicates among images, and which to keep.",
    "score": "Score results against references: VQA accuracy, CIDEr, BLEU, accuracy of classes and others.",
    "report": (
        "Write results as one HTML page: a card for each image, counts of answers as filters, search, and export."
    ),
    "models": "List known and cached checkpoints, the memory they take, and which fit this machine.",
    "doctor": "Check this machine: versions, devices, memory, cache, hub, and a self-test.",
    "bench": "Measure captions a second on this machine, by precision and batch size.",
}
"""Subcommand → the first line of its help, in the order of the help.

Its function has the same name, in a file of that name in this folder, which is imported when the command is used: the
help must not wait for the options of all.
"""


def function_of(name: str) -> Callable[..., None]:
    """The function of a subcommand, with its options as parameters."""
    return spelled(load_object(f"blip2cli.cli.{name}:{name}"))


def _command(name: str) -> TyperCommand:
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    try:
        alone.command(name, cls=PlainCommand)(function_of(name))
    except KeyboardInterrupt:  # of which Typer says nothing
        raise typer.Abort from None
    command = get_command(alone)
    assert isinstance(command, TyperCommand)
    return command


class _Subcommands(PlainGroup):
    """`blip2` with all its subcommands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, summary in COMMANDS.items():
            self.add_command(ListedCommand(name, summary, _command))


app = typer.Typer(
    name="blip2",
    help="BLIP-2 over image collections: captions, answers, features, matching and search.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    cls=_Subcommands,
)


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
