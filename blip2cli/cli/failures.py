"""From what went wrong to two lines on stderr and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from blip2cli.errors import Blip2Error
from blip2cli.terminal import show_error

INTERRUPTED = 130

MISTYPED: type[Exception] = typer.BadParameter.__mro__[1]
"""What Typer raises for a command line that it cannot parse (click's UsageError, which Typer does not name)."""


@contextmanager
def reported(debug: bool) -> Iterator[None]:
    """Run what is inside; every failure becomes its message and exit code, a traceback only with `debug`."""
    try:
        yield
    except Blip2Error as error:
        if debug:
            raise
        show_error(error.message, error.hint)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        show_error("interrupted", "Rows committed to --out are kept; the same command with --resume goes on.")
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:  # whoever read our rows has had enough of them
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if debug:
            raise
        reason = " ".join(str(error).split())[:200]
        show_error(f"{type(error).__name__}: {reason}", "This should not happen; run with --debug and report it.")
        raise typer.Exit(1) from None


def show_mistyped(error: Any) -> None:
    """Show an error of class MISTYPED in two lines."""
    command = error.ctx.command_path if error.ctx else "blip2"
    show_error(" ".join(error.format_message().split()), f"See {command} --help.")
