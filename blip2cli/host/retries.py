"""Reading again what failed for a moment: a busy disk, or a network."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from blip2cli.errors import UsageError, reason

T = TypeVar("T")

TRANSIENT = {
    *(errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.EBUSY, errno.ECONNRESET, errno.ECONNABORTED),
    *(errno.ENETRESET, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
}
"""Errors of reading that may be temporary."""

WAITS = (0.1, 0.3, 0.9)
"""Seconds between the attempts to read."""


def retried(function: Callable[[], T]) -> T:
    """The function's result; temporary errors of a busy disk or a network (TRANSIENT) are
    tried again after WAITS.

    Raises OSError, whatever exception a file system's package raises.
    """
    for wait in (*WAITS, None):
        try:
            return function()
        except OSError as error:
            failure = error
        except (UsageError, ValueError):
            raise
        except Exception as error:  # each package has its own exceptions
            failure = OSError(errno.EIO, reason(error, named=True))
        if failure.errno is not None and failure.errno not in TRANSIENT:
            break
        if isinstance(failure, (FileNotFoundError, PermissionError, IsADirectoryError)):
            break
        if wait is not None:
            time.sleep(wait)
    raise failure
