"""One file by http or https, fetched within one deadline and one number of bytes.

Both hold for the exchange as a whole: look-up of names, connecting, TLS handshakes, interim answers, headers,
redirects and the body. Each connection, also after redirects, is made to an address that was checked first, so that
no name can lead to a private network. No proxy, no cookies, no credentials.
"""

from __future__ import annotations

import email.utils
import http.client
import io
import re
import socket
import ssl
import string
import time
import urllib.parse
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from blip2cli import __version__
from blip2cli.errors import one_line, reason
from blip2cli.host.web.addresses import is_public
from blip2cli.host.web.deadline import Deadline, TooSlowError
from blip2cli.records import ErrorKind

T = TypeVar("T")

REDIRECTS = 10
"""Redirects that are followed."""

REDIRECT_CODES = (301, 302, 303, 307, 308)

LONGEST_URL = 16 << 10
"""Characters of the longest URL that is fetched."""

OVERHEAD = 1 << 20
"""Bytes that an exchange may take in addition to its file: status lines, headers, chunk sizes."""

CHUNK = 1 << 20
"""Bytes that are read at a time."""

GONE = (404, 410)

BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Status codes that may be temporary."""

HOST_CHARACTERS = frozenset(string.ascii_letters + string.digits + "-._~%:")
"""What a host consists of once it is encoded: a name or an IP address."""

CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(\d{1,19})")
"""Of the answer with a span: its start, and the size of the file."""

LONGEST_WAIT = 86_400
"""Seconds: a longer Retry-After is taken for this."""


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


@dataclass(frozen=True)
class Span:
    """Bytes from within a file, and how many the file has."""

    data: bytes
    total: int


@dataclass(frozen=True)
class Bounds:
    """The limits of an exchange.

    Args:
        deadline: when it has to be done.
        most: bytes of the largest file.
        allow_private: whether this machine and private networks may be asked.
    """

    deadline: Deadline
    most: int
    allow_private: bool = False


def get(url: str, bounds: Bounds) -> bytes:
    """The bytes behind a URL, after redirects. Raises WebError, and no other exception."""
    return _exchange(url, bounds, {}, lambda answer: _file(answer, bounds))


def get_span(url: str, bounds: Bounds, start: int, stop: int) -> Span:
    """The bytes of a file from `start` up to `stop`.

    Raises WebError: NoSpansError if the server does not support range requests.
    """
    headers = {"Range": f"bytes={start}-{stop - 1}"}
    return _exchange(url, bounds, headers, lambda answer: _span(answer, start, stop))


def repeated(attempt: Callable[[], T], waits: Iterable[float], deadline: Deadline) -> T:
    """The result of an attempt; one that fails with a temporary fault is repeated after each of the waits, in seconds.

    A wait that the server asks for is respected. Raises WebError: that of the last attempt, also if the deadline
    leaves no time for another.
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
                asked = f"; the server asks to wait {error.wait:,.0f} s" if error.wait else ""
                raise WebError(error.kind, error.detail + asked) from None
            time.sleep(seconds)


def _exchange(
    url: str, bounds: Bounds, headers: Mapping[str, str], taken: Callable[[http.client.HTTPResponse], T]
) -> T:
    """What `take` reads from the answer behind a URL, after redirects. Raises WebError, and no other exception."""
    meter = _Meter(bounds)
    asked: set[str] = set()
    try:
        while True:
            target = _parsed(url)
            if target.geturl() in asked:
                raise WebError("unreadable", "redirects in a loop")
            if len(asked) > REDIRECTS:
                raise WebError("unreadable", f"more than {REDIRECTS} redirects")
            asked.add(target.geturl())
            with closing(_connected(target, meter)) as connection:
                answer = _asked(connection, target, meter, headers)
                if answer.status not in REDIRECT_CODES:
                    return taken(answer)
                url = _redirected(target, answer)
    except WebError:
        raise
    except Exception as error:  # sockets, TLS, HTTP and encodings have their own exceptions
        raise _translated(error) from None


def _translated(error: Exception) -> WebError:
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


# ---- URLs ----


def _parsed(url: str) -> urllib.parse.SplitResult:
    """The URL as it is requested. Raises WebError if it is not one that may be fetched."""
    if len(url) > LONGEST_URL:
        raise WebError("unsupported", f"a URL of {len(url):,} characters")
    try:
        parts = urllib.parse.urlsplit(url.strip())
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
        path = urllib.parse.quote(parts.path or "/", safe="%/:@!$&'()*+,;=~[]|")
        query = urllib.parse.quote(parts.query, safe="%/:@!$&'()*+,;=?~[]|")
    except ValueError as error:  # UnicodeError among them
        raise WebError("unsupported", f"the URL is not valid: {reason(error)}") from None
    if parts.scheme not in ("http", "https"):
        raise WebError("unsupported", f"a URL of {parts.scheme[:20]}://")
    if not host or not set(host) <= HOST_CHARACTERS:
        raise WebError("unsupported", "the URL is not valid: it has no valid host")
    if parts.username is not None or parts.password is not None:
        raise WebError("unsupported", "a URL with a user name, which is not supported")
    name = f"[{host}]" if ":" in host else host
    return urllib.parse.SplitResult(parts.scheme, name if port is None else f"{name}:{port}", path, query, "")


def _redirected(target: urllib.parse.SplitResult, answer: http.client.HTTPResponse) -> str:
    """The URL that an answer redirects to. Raises WebError if the redirect is not followed."""
    location = answer.headers.get("Location")
    if not location:
        raise WebError("unreadable", f"HTTP {answer.status} without a target")
    if len(location) > LONGEST_URL:
        raise WebError("unreadable", "redirected to a URL that is too long")
    location = urllib.parse.quote(str(location), safe=string.punctuation, encoding="latin-1", errors="replace")
    try:
        url = urllib.parse.urljoin(target.geturl(), location)
        scheme = urllib.parse.urlsplit(url).scheme
    except ValueError:
        raise WebError("unreadable", "redirected to a URL that is not valid") from None
    if scheme not in ("http", "https"):
        raise WebError("unreadable", f"redirected to {scheme[:20]}:, not followed")
    if target.scheme == "https" and scheme == "http":
        raise WebError("unreadable", "redirected from https to http, not followed")
    return url


# ---- connections ----


class _Meter:
    """Counts the bytes that an exchange takes, and checks its deadline."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.taken = 0

    def left(self) -> float:
        return self.bounds.deadline.left()

    def count(self, number: int) -> None:
        self.taken += number
        if self.taken > self.bounds.most + OVERHEAD:
            raise _too_large(self.bounds.most)


class _MeteredSocket:
    """A socket as http.client uses one, each of whose reads and writes has the time that the exchange has left.

    Its `close` closes nothing: http.client calls it before the body is read.
    """

    def __init__(self, connection: socket.socket, meter: _Meter) -> None:
        self.connection, self.meter = connection, meter

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self.connection, self.meter))

    def sendall(self, data: bytes) -> None:
        self.connection.settimeout(self.meter.left())
        self.connection.sendall(data)

    def close(self) -> None:
        """Do nothing: see above."""


class _Incoming(io.RawIOBase):
    """The bytes that come from a socket."""

    def __init__(self, connection: socket.socket, meter: _Meter) -> None:
        self.connection, self.meter = connection, meter

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.connection.settimeout(self.meter.left())
        try:
            number = self.connection.recv_into(buffer)
        except TimeoutError:
            raise self.meter.bounds.deadline.passed() from None
        self.meter.count(number)
        return number


def _connected(target: urllib.parse.SplitResult, meter: _Meter) -> socket.socket:
    """A connection to the first of the host's addresses that answers. Raises WebError where none may be asked."""
    host, secure = target.hostname or "", target.scheme == "https"
    port = target.port if target.port is not None else (443 if secure else 80)
    addresses = meter.bounds.deadline.run(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    if not meter.bounds.allow_private:
        addresses = [entry for entry in addresses if is_public(str(entry[4][0]))]
    if not addresses:
        raise WebError("unreadable", f"{host} is on a private network, not fetched")
    for number, (family, kind, protocol, _, address) in enumerate(addresses, 1):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(meter.left() / 2 if number < len(addresses) else meter.left())
            connection.connect(address)
            return _secured(connection, host, meter) if secure else connection
        except OSError:
            connection.close()
            if number == len(addresses):
                meter.left()
                raise
    raise AssertionError("the last address either connects or raises")


def _secured(connection: socket.socket, host: str, meter: _Meter) -> ssl.SSLSocket:
    """The connection with TLS, the certificate checked against the host's name."""
    connection.settimeout(meter.left())  # which holds for the handshake as a whole
    return _tls().wrap_socket(connection, server_hostname=host)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


# ---- answers ----


def _asked(
    connection: socket.socket, target: urllib.parse.SplitResult, meter: _Meter, headers: Mapping[str, str]
) -> http.client.HTTPResponse:
    """The answer to a request, up to its body."""
    client = http.client.HTTPConnection(target.netloc)
    client.sock = _MeteredSocket(connection, meter)
    own_headers = {"User-Agent": f"blip2cli/{__version__}", "Accept": "*/*", "Connection": "close"}
    path = f"{target.path}?{target.query}" if target.query else target.path
    client.request("GET", path, headers={**own_headers, **headers})
    return client.getresponse()


def _file(answer: http.client.HTTPResponse, bounds: Bounds) -> bytes:
    """The file that an answer holds. Raises WebError where it holds none."""
    if answer.status not in (200, 203):
        raise _refused(answer)
    return _unpacked(_body(answer, bounds.most), answer.headers.get("Content-Encoding", ""), bounds.most)


def _span(answer: http.client.HTTPResponse, start: int, stop: int) -> Span:
    """The span that an answer holds. Raises WebError where it holds none, or another."""
    if answer.status in (200, 203, 416):  # an empty file has none
        raise NoSpansError("unreadable", "the server does not support range requests")
    if answer.status != 206:
        raise _refused(answer)
    content_range = CONTENT_RANGE.fullmatch(str(answer.headers.get("Content-Range", "")).strip())
    encoded = answer.headers.get("Content-Encoding", "identity") != "identity"
    if content_range is None or encoded or int(content_range[1]) != start:
        raise NoSpansError("unreadable", "the server sent another range than requested")
    total = int(content_range[2])
    data = _body(answer, stop - start)
    if len(data) != min(stop, total) - start:
        raise WebError("unreadable", "the server sent less than requested", passing=True)
    return Span(data, total)


def _refused(answer: http.client.HTTPResponse) -> WebError:
    """The error for a status code without a file."""
    if answer.status in GONE:
        return WebError("missing", "nothing at that URL")
    wait = _wait_asked(answer) if answer.status in (429, 503) else None
    return WebError("unreadable", f"HTTP {answer.status}", answer.status in BUSY, wait)


def _body(answer: http.client.HTTPResponse, most: int) -> bytes:
    if answer.length is not None and answer.length > most:
        raise _too_large(most)
    taken = bytearray()
    while piece := answer.read1(CHUNK):
        taken += piece
        if len(taken) > most:
            raise _too_large(most)
    if answer.length:
        raise WebError("unreadable", f"{answer.length:,} bytes are missing", passing=True)
    return bytes(taken)


def _unpacked(body: bytes, encoding: str, most: int) -> bytes:
    """The body, decompressed: a server may compress it although it was asked not to."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise WebError("unreadable", f"Content-Encoding {encoding[:20]!r}")
    unpacker = zlib.decompressobj(wbits=47)  # gzip or zlib, by its head
    try:
        unpacked = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        raise WebError("unreadable", f"the compressed data are damaged: {error}") from None
    if len(unpacked) > most:
        raise _too_large(most)
    if not unpacker.eof:
        raise WebError("unreadable", "the compressed data end early", passing=True)
    return unpacked


def _wait_asked(answer: http.client.HTTPResponse) -> float | None:
    """Seconds to wait by Retry-After, which holds a number or a date; None where the header is not valid."""
    value = str(answer.headers.get("Retry-After", "")).strip()[:64]
    if value.isascii() and value.isdigit():
        return float(min(int(value), LONGEST_WAIT))
    try:
        moment = email.utils.parsedate_to_datetime(value)
        return min(max(0.0, moment.timestamp() - time.time()), LONGEST_WAIT)
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None


def _too_large(most: int) -> WebError:
    return WebError("too-large", f"more than {most >> 20} MiB")
