"""Why a file cannot be fetched."""

from __future__ import annotations

import http.client
import socket
import ssl

from blip2cli.errors import one_line, reason
from blip2cli.host.web.deadline import TooSlowError
from blip2cli.records import ErrorKind


class WebError(Exception):
    """A file cannot be fetched.

    Args:
        kind: the kind of the row's error.
        detail: a few words more.
        passing: whether the fault may be temporary.
        wait: seconds after which the server wants to be asked again, None where it did not say.
    """

    def __init__(self, kind: ErrorKind, detail: str, passing: bool = False, wait: float | None = None) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.passing, self.wait = kind, detail, passing, wait


class NoSpansError(WebError):
    """The server does not support range requests."""


def too_large(most: int) -> WebError:
    return WebError("too-large", f"more than {most >> 20} MiB")


def translated(error: Exception) -> WebError:
    """The fault of an exchange, as the text of an error row."""
    if isinstance(error, TooSlowError):
        return WebError("unreadable", str(error))
    if isinstance(error, ssl.SSLCertVerificationError):
        return WebError("unreadable", f"the certificate is not valid: {one_line(error.verify_message)}")
    if isinstance(error, socket.gaierror):
        return WebError("unreadable", reason(error), passing=error.errno == socket.EAI_AGAIN)
    named = not (isinstance(error, OSError) and error.strerror)
    passing = isinstance(error, (OSError, http.client.HTTPException))
    return WebError("unreadable", reason(error, named), passing)
