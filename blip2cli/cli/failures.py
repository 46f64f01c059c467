"""Turns an exception into two lines on stderr and an exit code. Only this module knows exit codes."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import typer

from blip2cli.errors import Blip2Error, Interrupted, UsageError, reason
from blip2cli.host.signals import told
from blip2cli.host.terminal import show_error

FAILED, WRONG_USAGE, SOME_ERRORS, INTERRUPTED = 1, 2, 3, 130
"""Exit codes: the run could not go on; wrong usage; finished with error rows; stopped by Ctrl-C or SIGTERM."""

OTHERS = 3
"""Commands that a message names for an option that another command does not have."""

CALLED = {
    "--trigger": "--prefix",
    "--continue": "--resume",
    "--heatmap": "--explain",
    "--similarity": "--threshold",
    "--like": "--image",
    "--limit": "--top-k",
}
"""Option of other tools, or of other commands → what is meant in a command that has this one and not the other."""

GO_ON = "Rows committed to --out are kept; run the same command with --resume to continue."
"""The hint after Ctrl-C, for commands with --resume."""

START_ANEW = "Nothing was kept; with --out, a run can be resumed."
"""The same without an output."""

MISTYPED: type[Exception] = typer.BadParameter.__mro__[1]
"""What Typer raises for a command line that it cannot parse (click's UsageError, which Typer does not name)."""


@contextmanager
def reported(debug: bool, interrupted: str = "") -> Iterator[None]:
    """Run what is inside; every failure becomes its message and exit code, a traceback only with `debug`.

    With `debug` what our modules log is shown on stderr too. `interrupted` is the hint after Ctrl-C; None if there
    is nothing to continue.
    """
    try:
        with _log_shown() if debug else nullcontext():
            yield
    except Blip2Error as error:
        if debug:
            raise
        show_error(error.message, error.hint)
        raise typer.Exit(WRONG_USAGE if isinstance(error, UsageError) else FAILED) from None
    except Interrupted as stopped:
        show_error("interrupted", f"{stopped.kept}; {stopped.hint}.")
        told()
        raise typer.Exit(INTERRUPTED) from None
    except KeyboardInterrupt:
        show_error("interrupted", interrupted)
        told()
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:  # the reader of our rows has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if debug:
            raise
        show_error(*message_and_hint(error))
        raise typer.Exit(FAILED) from None


@contextmanager
def _log_shown() -> Iterator[None]:
    """Show what our own modules log, a line each."""
    log, handler = logging.getLogger("blip2cli"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("debug: %(message)s"))
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def message_and_hint(error: Exception) -> tuple[str, str]:
    """Message and hint for an exception of another library."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return (
            f"out of memory: {reason(error)}",
            "Use a smaller --batch-size, --dtype int8, another --device or --device-map.",
        )
    return reason(error, named=True), "This should not happen; run with --debug and report it."


def show_mistyped(error: Any) -> None:
    """Show an error of class MISTYPED in two lines."""
    command = error.ctx.command_path if error.ctx else "blip2"
    message = " ".join(error.format_message().split()).replace("Value error, ", "")  # added by pydantic
    others = _commands_with(error.option_name, error.ctx) if type(error).__name__ == "NoSuchOption" else []
    if others:
        message = f"{error.option_name} is not an option of this command, but of {', '.join(others)}"
    meant = CALLED.get(str(error.option_name)) if type(error).__name__ == "NoSuchOption" else None
    question = f"Did you mean {meant}? " if meant and _has_option(error.ctx, meant) else ""
    show_error(message, f"{question}See {command} --help.")


def _has_option(context: Any, option: str) -> bool:
    """Whether the command that was typed has an option."""
    return context is not None and any(option in parameter.opts for parameter in context.command.get_params(context))


def _commands_with(option: str, context: Any) -> list[str]:
    """The commands that have an option; of many the first."""
    if context is None or context.parent is None:
        return []
    names = []
    for name, command in context.parent.command.commands.items():
        if any(option in parameter.opts for parameter in command.get_params(context)):
            names.append(name)
    return [f"blip2 {name}" for name in names[:OTHERS]]
