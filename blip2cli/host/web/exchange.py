"""One file by http or https, fetched within one deadline and one number of bytes.

Both hold for the exchange as a whole: look-up of names, connecting, TLS handshakes, interim answers, headers,
redirects and the body. Each connection, those of redirects too, is made to an address that was looked at first, so that
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
"""Characters of the longest URL that is asked for."""

OVERHEAD = 1 << 20
"""Bytes that an exchange may take above those of its file: status lines, headers, chunk sizes."""

CHUNK = 1 << 20
"""Bytes that are read at a time."""

GONE = (404, 410)

BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Status codes of a web server that may answer otherwise the next time."""

HOST_CHARACTERS = frozenset(string.ascii_letters + string.digits + "-._~%:")
"""What a host consists of once it is encoded: a name or an IP address."""

CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(\d{1,19})")
"""Of the answer with a span: its start, and the size of the file."""

LONGEST_WAIT = 86_400
"""Seconds: a longer Retry-After is taken for this."""


class WebError(Exception):
    """A file cannot be had.

    Args:
        kind: the kind of the row's error.
        detail: a few words more.
        passing: whether it may go well the next time.
        wait: seconds after which the server wants to be asked again, None where it did not say.
    """

    def __init__(self, kind: ErrorKind, detail: str, passing: bool = False, wait: float | None = None) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.passing, self.wait = kind, detail, passing, wait


class NoSpansError(WebError):
    """The server gives the file only whole."""


@dataclass(frozen=True)
class Span:
    """Bytes from within a file, and how many the file has."""

    data: bytes
    total: int


@dataclass(frozen=True)
class Bounds:
    """What an exchange may take.

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

    Raises WebError: NoSpansError where the server gives the file only whole.
    """
    headers = {"Range": f"bytes={start}-{stop - 1}"}
    return _exchange(url, bounds, headers, lambda answer: _span(answer, start, stop))


def repeated(attempt: Callable[[], T], waits: Iterable[float], deadline: Deadline) -> T:
    """What an attempt gives; one that fails of what may pass is repeated after each of the waits, in seconds.

    A wait that the server asks for is heeded. Raises WebError: the last attempt's, also where the deadline leaves no
    time for another.
    """
    left = iter(waits)
    while True:
        try:
            return attempt()
        except WebError as error:
            wait = next(left, None)
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
    """What is taken of the answer behind a URL, after redirects. Raises WebError, and no other exception."""
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
    except Exception as error:  # sockets, TLS, HTTP and encodings have their own
        raise _translated(error) from None


def _translated(error: Exception) -> WebError:
    """What an exchange failed of, in the words of an error row."""
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
    """The URL as it is asked for. Raises WebError where it is not one that is fetched."""
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
        raise WebError("unsupported", "the URL is not valid: no host that can be asked for")
    if parts.username is not None or parts.password is not None:
        raise WebError("unsupported", "a URL with a user name, which is not sent")
    name = f"[{host}]" if ":" in host else host
    return urllib.parse.SplitResult(parts.scheme, name if port is None else f"{name}:{port}", path, query, "")


def _redirected(target: urllib.parse.SplitResult, answer: http.client.HTTPResponse) -> str:
    """The URL that an answer redirects to. Raises WebError where it is not followed."""
    location = answer.headers.get("Location")
    if not location:
        raise WebError("unreadable", f"HTTP {answer.status} to nowhere")
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
    """Counts the bytes that an exchange takes, and keeps its time."""

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
        """Nothing: see above."""


class _Incoming(io.RawIOBase):
    """What comes from a socket."""

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
    found = meter.bounds.deadline.run(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    if not meter.bounds.allow_private:
        found = [entry for entry in found if is_public(str(entry[4][0]))]
    if not found:
        raise WebError("unreadable", f"{host} is on a private network, not fetched")
    for number, (family, kind, protocol, _, address) in enumerate(found, 1):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(meter.left() / 2 if number < len(found) else meter.left())
            connection.connect(address)
            return _secured(connection, host, meter) if secure else connection
        except OSError:
            connection.close()
            if number == len(found):
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
    own = {"User-Agent": f"blip2cli/{__version__}", "Accept": "*/*", "Connection": "close"}
    path = f"{target.path}?{target.query}" if target.query else target.path
    client.request("GET", path, headers={**own, **headers})
    return client.getresponse()


def _file(answer: http.client.HTTPResponse, bounds: Bounds) -> bytes:
    """The file that an answer holds. Raises WebError where it holds none."""
    if answer.status not in (200, 203):
        raise _refused(answer)
    return _unpacked(_body(answer, bounds.most), answer.headers.get("Content-Encoding", ""), bounds.most)


def _span(answer: http.client.HTTPResponse, start: int, stop: int) -> Span:
    """The span that an answer holds. Raises WebError where it holds none, or another."""
    if answer.status in (200, 203, 416):  # an empty file has none
        raise NoSpansError("unreadable", "the server gives no parts of files")
    if answer.status != 206:
        raise _refused(answer)
    told = CONTENT_RANGE.fullmatch(str(answer.headers.get("Content-Range", "")).strip())
    encoded = answer.headers.get("Content-Encoding", "identity") != "identity"
    if told is None or encoded or int(told[1]) != start:
        raise NoSpansError("unreadable", "the server gives other parts of files than are asked for")
    total = int(told[2])
    data = _body(answer, stop - start)
    if len(data) != min(stop, total) - start:
        raise WebError("unreadable", "the server gives less than is asked for", passing=True)
    return Span(data, total)


def _refused(answer: http.client.HTTPResponse) -> WebError:
    """What a status code comes to that stands for no file."""
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
    """The body without the compression that a server has put on although it was asked for none."""
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
    """Seconds to wait by Retry-After, which holds a number or a date; None where it says nothing that makes sense."""
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
