"""The standard streams: safe to write to, even if one was closed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from io import TextIOWrapper
from typing import Any

from blip2cli.host.terminal.text import escaped


class GuardedStream:
    """A text stream that escapes what could control a terminal: tracebacks, logs and
    warnings of libraries."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(escaped(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def guard_streams() -> None:
    """Make stderr safe to write to, and open a substitute for a closed standard stream,
    before a file takes its number.

    If stdout is closed, writing to it fails as on a full disk.
    """
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # it takes the lowest free number
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = TextIOWrapper(open(1, "wb", 0, closefd=False), write_through=True)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    if not isinstance(sys.stderr, GuardedStream):
        sys.stderr = GuardedStream(_apart_from_native_code(sys.stderr))


def _apart_from_native_code(stream: Any) -> Any:
    """The stream of descriptor 2 over a copy of it, which stays open to us while native code is silenced."""
    try:
        if stream.fileno() != 2:
            return stream
        copy = os.dup(2)
    except (OSError, ValueError):  # it has no descriptor, or there is none left
        return stream
    return open(copy, "w", buffering=1, encoding=stream.encoding, errors=stream.errors)


def unguarded() -> Any:
    """The stream of stderr itself, for what moves the cursor."""
    return sys.stderr.stream if isinstance(sys.stderr, GuardedStream) else sys.stderr
