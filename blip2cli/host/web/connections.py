"""Connections to addresses that were checked first, whose reads and writes all count for
their exchange."""

from __future__ import annotations

import io
import socket
import ssl
import urllib.parse
from functools import cache
from typing import Any

from blip2cli.host.web.addresses import is_public
from blip2cli.host.web.bounds import Meter
from blip2cli.host.web.faults import WebError


def connected(target: urllib.parse.SplitResult, meter: Meter) -> socket.socket:
    """A connection to the first of the host's addresses that answers.

    Raises WebError where none may be asked.
    """
    host, secure = target.hostname or "", target.scheme == "https"
    port = target.port if target.port is not None else (443 if secure else 80)
    addresses = meter.bounds.deadline.run(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    if not meter.bounds.allow_private:
        addresses = [entry for entry in addresses if is_public(str(entry[4][0]))]
    if not addresses:
        raise WebError("unreadable", f"{host} is on a private network, not fetched without --allow-private")
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


def _secured(connection: socket.socket, host: str, meter: Meter) -> ssl.SSLSocket:
    """The connection with TLS, the certificate checked against the host's name."""
    connection.settimeout(meter.left())  # which holds for the handshake as a whole
    return tls().wrap_socket(connection, server_hostname=host)


@cache
def tls() -> ssl.SSLContext:
    return ssl.create_default_context()


class MeteredSocket:
    """A socket as http.client uses one, each of whose reads and writes has the time that
    the exchange has left.

    Its `close` closes nothing: http.client calls it before the body is read.
    """

    def __init__(self, connection: socket.socket, meter: Meter) -> None:
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

    def __init__(self, connection: socket.socket, meter: Meter) -> None:
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
