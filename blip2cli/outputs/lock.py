"""The lock that keeps two runs off one output."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blip2cli.errors import UsageError, reason
from blip2cli.host.files import cannot_write, check_regular


@contextmanager
def locked(path: Path, out: Path, named: Path) -> Iterator[None]:
    """Keep other runs off an output while inside. The lock is on its hidden file, and dies with the process.

    Raises UsageError.

    Args:
        path: the hidden file.
        out: the output; if it is a file, it is locked too, as it may have another name elsewhere.
        named: the output as the user has it.
    """
    held = [_opened(path, named)]
    try:
        if out.is_file():
            held.append(_open(out, os.O_RDWR))  # as NFS wants it for a lock of one's own
            _lock(held[-1], named)
        yield
    finally:
        for descriptor in held:
            _release(descriptor)


def _opened(path: Path, named: Path) -> int:
    """The hidden file, locked."""
    check_regular(path)
    while True:
        descriptor = _open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        try:
            _lock(descriptor, named)
            if _is_at(descriptor, path):
                return descriptor
        except _NoLocks:
            if not os.fstat(descriptor).st_size:
                path.unlink(missing_ok=True)
            _release(descriptor)
            raise
        except BaseException:
            _release(descriptor)
            raise
        _release(descriptor)  # another run has removed it meanwhile


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


class _NoLocks(UsageError):
    """The file system has no locks."""


_HELD: set[int] = set()
"""Descriptors with a lock. A child process gives them up, so that a lock ends with the process that took it."""


def _lock(descriptor: int, named: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"{named} is being written by another run", "Wait for it, or choose another --out.") from None
    except OSError as error:
        raise _NoLocks(
            f"cannot lock {named}: {reason(error)}",
            "The file system has no locks: write to another one, and copy the output there.",
        ) from None
    _HELD.add(descriptor)


def _release(descriptor: int) -> None:
    _HELD.discard(descriptor)
    os.close(descriptor)


def _let_go() -> None:
    while _HELD:
        os.close(_HELD.pop())


os.register_at_fork(after_in_child=_let_go)


def _open(path: Path, flags: int) -> int:
    """A descriptor of a file. Raises UsageError."""
    try:
        return os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UsageError(f"{path} is a symbolic link", f"Remove it: rm {path}") from None
        failure = cannot_write(path, error)
        raise UsageError(failure.message, failure.hint) from None
