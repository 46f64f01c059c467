"""Errors of the libraries that read checkpoints, turned into errors that a user
understands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from blip2cli.errors import Blip2Error, CheckpointError, reason


@contextmanager
def explained(fault: str, hint: str) -> Iterator[None]:
    """Raise CheckpointError for whatever fails inside: what is wrong, with the library's
    reason, and what to do.

    A panic in a library written in Rust is such a failure too. Running out of memory is
    not: it says nothing about the checkpoint.
    """
    try:
        yield
    except Blip2Error:
        raise
    except BaseException as error:
        if _out_of_memory(error):
            raise MemoryError(str(error)) from error
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise CheckpointError(f"{fault}: {reason(error)}", hint) from error


def is_panic(error: BaseException) -> bool:
    """Whether it is a panic of a library written in Rust, which is not an Exception."""
    return type(error).__module__ == "pyo3_runtime"


def _out_of_memory(error: BaseException) -> bool:
    refused = isinstance(error, RuntimeError) and "allocate memory" in str(error)
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or refused
