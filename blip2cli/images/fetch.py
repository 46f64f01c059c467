"""Fetching URLs that stand in manifests, which may come from anybody: bounded in size and time, from public addresses.

Each connection is made to an address that was looked at first, those of redirects too, so that no name can lead to this
machine or a private network. No proxy, no cookies, no credentials.
"""

from __future__ import annotations

import errno
import http.client
import ipaddress
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from blip2cli import __version__
from blip2cli.errors import ImageError
from blip2cli.host import storage

MAX_BYTES = 256 << 20
"""Largest file that is fetched."""

SECONDS = 20.0
"""Time for one URL, all attempts together."""

SCHEMES = ("http", "https", "s3", "gs", "hf")
"""Schemes of the URLs that are fetched; those of object stores lead to no address of the manifest's choosing."""

CHUNK = 1 << 20
GONE = (404, 410)
BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Answers of a web server that may be another the next time."""

NAT64 = ipaddress.ip_network("64:ff9b::/96")


def fetch(url: str, allow_private: bool = False) -> bytes:
    """The bytes behind a URL. Raises ImageError; what may pass is tried again as long as there is time."""
    scheme = url.partition("://")[0].lower()
    web = scheme in ("http", "https")
    if scheme not in SCHEMES or ("::" in url and not web):  # fsspec chains file systems with ::
        raise ImageError("unsupported", f"a URL of {scheme}://")
    deadline = time.monotonic() + SECONDS
    try:
        if web:
            return storage.retried(lambda: _fetched(url, allow_private, deadline))
        return storage.read(url, MAX_BYTES)
    except FileNotFoundError:
        raise ImageError("missing", "nothing at that URL") from None
    except OSError as error:
        kind = "too-large" if error.errno == errno.EFBIG else "unreadable"
        raise ImageError(kind, error.strerror or str(error)) from None


def _fetched(url: str, allow_private: bool, deadline: float) -> bytes:
    """One attempt. Raises OSError, FileNotFoundError among them."""
    request = urllib.request.Request(_ascii(url), headers={"User-Agent": f"blip2cli/{__version__}"})
    try:
        with _opener(allow_private).open(request, timeout=_left(deadline)) as answer:
            return _body(answer, deadline)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in GONE:
            raise FileNotFoundError(errno.ENOENT, "nothing at that URL") from None
        raise OSError(errno.EIO if error.code in BUSY else errno.EACCES, f"HTTP {error.code}") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, (_Refused, ssl.SSLCertVerificationError)):
            raise OSError(errno.EACCES, str(error.reason)) from None
        raise OSError(errno.EIO, str(error.reason)) from None
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}"[:120]) from None


def _ascii(url: str) -> str:
    """The URL as it is sent: letters of other scripts and blanks in its path and query by their codes."""
    parts = urllib.parse.urlsplit(url)
    path, query = (urllib.parse.quote(part, safe="%/:@!$&'()*+,;=?~[]|") for part in (parts.path, parts.query))
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, query, ""))


def _body(answer: Any, deadline: float) -> bytes:
    taken = bytearray()
    while piece := answer.read1(CHUNK):
        taken += piece
        if len(taken) > MAX_BYTES:
            raise OSError(errno.EFBIG, f"more than {MAX_BYTES >> 20} MiB")
        _left(deadline)
    if answer.length:
        raise OSError(errno.EIO, f"{answer.length:,} bytes are missing")
    return bytes(taken)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise OSError(errno.EACCES, f"took longer than {SECONDS:g} s")
    return left


class _Refused(OSError):
    """The address may not be connected to."""


def _opener(allow_private: bool) -> urllib.request.OpenerDirector:
    """What opens http and https and nothing else."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        _Web(allow_private),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


class _Web(urllib.request.AbstractHTTPHandler):
    """Opens http and https by connections that look at their address."""

    def __init__(self, allow_private: bool) -> None:
        super().__init__()
        self.allow_private = allow_private
        self.http_request = self.https_request = self.do_request_

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self._opened(_Connection, request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self._opened(_SecureConnection, request)

    def _opened(self, connection: Any, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(connection, request, allow_private=self.allow_private)


class _Connection(http.client.HTTPConnection):
    """Connects to an address that it has looked at."""

    def __init__(self, host: str, allow_private: bool, **given: Any) -> None:
        super().__init__(host, **given)
        self.allow_private = allow_private

    def connect(self) -> None:
        self.sock = _connected(self.host, self.port, self.timeout, self.allow_private)


class _SecureConnection(_Connection):
    """The same with TLS, the certificate checked against the host's name."""

    default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        super().connect()
        self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)


def _connected(host: str, port: int, timeout: float | None, allow_private: bool) -> socket.socket:
    """A connection to the first of the host's addresses that answers. Raises _Refused where none may be used."""
    failure: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if not (allow_private or is_public(str(address[0]))):
            continue
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(timeout)
        try:
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    if failure is None:
        raise _Refused(f"{host} is on a private network, not fetched")
    raise failure


def is_public(address: str) -> bool:
    """Whether an IP address is on the public internet, the IPv4 address that it may embed too."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None and not is_public(str(inner)):
            return False
    return ip.is_global and not ip.is_multicast
