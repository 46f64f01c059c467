"""One file by http or https, fetched within one deadline and one number of bytes.

Both hold for the exchange as a whole: look-up of names, connecting, TLS handshakes,
interim answers, headers, redirects and the body. Each connection, also after redirects,
is made to an address that was checked first, so that no name can lead to a private
network. No proxy, no cookies, no credentials.
"""

from __future__ import annotations

import http.client
import socket
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from typing import TypeVar

from blip2cli import __version__
from blip2cli.host.web.answers import Span, file_of, span_of
from blip2cli.host.web.bounds import Bounds, Meter
from blip2cli.host.web.connections import MeteredSocket, connected
from blip2cli.host.web.deadline import Deadline
from blip2cli.host.web.faults import WebError, translated
from blip2cli.host.web.urls import parsed, redirected

T = TypeVar("T")

REDIRECTS = 10
"""Redirects that are followed."""

REDIRECT_CODES = (301, 302, 303, 307, 308)


def get(url: str, bounds: Bounds) -> bytes:
    """The bytes behind a URL, after redirects.

    Raises WebError, and no other exception.
    """
    return _exchange(url, bounds, {}, lambda answer: file_of(answer, bounds.most))


def get_span(url: str, bounds: Bounds, start: int, stop: int) -> Span:
    """The bytes of a file from `start` up to `stop`.

    Raises WebError: NoSpansError if the server does not support range requests.
    """
    headers = {"Range": f"bytes={start}-{stop - 1}"}
    return _exchange(url, bounds, headers, lambda answer: span_of(answer, start, stop))


def repeated(attempt: Callable[[], T], waits: Iterable[float], deadline: Deadline) -> T:
    """The result of an attempt; one that fails with a temporary fault is repeated after
    each of the waits, in seconds.

    A wait that the server asks for is respected. Raises WebError: that of the last
    attempt, also if the deadline leaves no time for another.
    """
    remaining_waits = iter(waits)
    while True:
        try:
            return attempt()
        except WebError as error:
            wait = next(remaining_waits, None)
            if wait is None or not error.passing:
                raise
            seconds = max(wait, error.wait or 0.0)
            if time.monotonic() + seconds >= deadline.at:
                wish = f"; the server asks to wait {error.wait:,.0f} s" if error.wait else ""
                raise WebError(error.kind, error.detail + wish) from None
            time.sleep(seconds)


def _exchange(url: str, bounds: Bounds, headers: Mapping[str, str], read: Callable[[http.client.HTTPResponse], T]) -> T:
    """What `read` reads from the answer behind a URL, after redirects.

    Raises WebError, and no other exception.
    """
    meter = Meter(bounds)
    visited: set[str] = set()
    try:
        while True:
            target = parsed(url)
            if target.geturl() in visited:
                raise WebError("unreadable", "redirects in a loop")
            if len(visited) > REDIRECTS:
                raise WebError("unreadable", f"more than {REDIRECTS} redirects")
            visited.add(target.geturl())
            with closing(connected(target, meter)) as connection:
                answer = _request(connection, target, meter, headers)
                if answer.status not in REDIRECT_CODES:
                    return read(answer)
                url = redirected(target, answer)
    except WebError:
        raise
    except Exception as error:  # sockets, TLS, HTTP and encodings have their own exceptions
        raise translated(error) from None


def _request(
    connection: socket.socket, target: urllib.parse.SplitResult, meter: Meter, headers: Mapping[str, str]
) -> http.client.HTTPResponse:
    """The answer to a request, up to its body."""
    client = http.client.HTTPConnection(target.netloc)
    client.sock = MeteredSocket(connection, meter)
    own_headers = {"User-Agent": f"blip2cli/{__version__}", "Accept": "*/*", "Connection": "close"}
    path = f"{target.path}?{target.query}" if target.query else target.path
    client.request("GET", path, headers={**own_headers, **headers})
    return client.getresponse()
