"""Files of web servers that the user names, such as manifests and archives: read by
ranges, or else as a whole."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from typing import BinaryIO, TypeVar

from blip2cli.errors import reason
from blip2cli.host import retries
from blip2cli.host.spans import spans_as_file
from blip2cli.host.web.answers import Span
from blip2cli.host.web.bounds import Bounds
from blip2cli.host.web.deadline import Deadline
from blip2cli.host.web.exchange import get, get_span, repeated
from blip2cli.host.web.faults import NoSpansError, WebError

T = TypeVar("T")

SPAN_SECONDS = 60.0
"""Time for one span of a file, which is BLOCK long at most; all attempts together."""

WHOLE_SECONDS = 600.0
"""Time for a file that has to be read as a whole."""

MOST_WHOLE = 256 << 20
"""Bytes of the largest file that may be read as a whole, into memory."""


def open_web(url: str) -> BinaryIO:
    """A file behind a URL, open for reading, with `seek`. Raises OSError."""
    try:
        size = _size(url)
    except NoSpansError:
        return io.BytesIO(_whole(url))

    def read_span(start: int, stop: int) -> bytes:
        span = as_os_error(lambda: _span(url, start, stop))
        if span.total != size:
            raise OSError(errno.ESPIPE, "the file changed while it was read")
        return span.data

    return spans_as_file(read_span, size)


def web_file_exists(url: str) -> bool:
    """Whether a file exists behind a URL. Raises OSError if this cannot be known."""
    try:
        _size(url)
    except NoSpansError:
        return True
    except FileNotFoundError:
        return False
    return True


def _size(url: str) -> int:
    """How many bytes a file has.

    Raises OSError, and NoSpansError if its server does not support range requests.
    """
    return as_os_error(lambda: _span(url, 0, 1)).total


def _span(url: str, start: int, stop: int) -> Span:
    bounds = Bounds(Deadline.after(SPAN_SECONDS), stop - start, allow_private=True)
    return repeated(lambda: get_span(url, bounds, start, stop), retries.WAITS, bounds.deadline)


def _whole(url: str) -> bytes:
    bounds = Bounds(Deadline.after(WHOLE_SECONDS), MOST_WHOLE, allow_private=True)
    try:
        return as_os_error(lambda: repeated(lambda: get(url, bounds), retries.WAITS, bounds.deadline))
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise OSError(
            errno.EFBIG, f"{reason(error)}, and the server does not support range requests: download it first"
        ) from None


def as_os_error(request: Callable[[], T]) -> T:
    """The result of the request.

    Raises OSError, of a kind that is not tried again, and NoSpansError.
    """
    try:
        return request()
    except NoSpansError:
        raise
    except WebError as error:
        if error.kind == "missing":
            raise FileNotFoundError(errno.ENOENT, error.detail) from None
        number = errno.EFBIG if error.kind == "too-large" else errno.EACCES
        raise OSError(number, error.detail) from None
