"""From what went wrong to two lines on stderr and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from blip2cli.errors import Blip2Error
from blip2cli.terminal import show_error

INTERRUPTED = 130


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
        show_error("interrupted", "What was committed is kept; run the same command with --resume to go on.")
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
