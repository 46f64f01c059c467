"""A server on loopback that says word for word what a test wants."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from blip2cli.errors import ImageError
from blip2cli.host import retries
from blip2cli.host.web import bounds
from blip2cli.images import fetch as fetching
from blip2cli.images.fetch import fetch

Script = Callable[[socket.socket, bytes], None]
"""What a server does with a connection and the request that came through it."""


OK = b"HTTP/1.1 200 OK\r\n"

SLOW = "unreadable: took longer than 0.4 s"
LARGE = "too-large: more than 1 MiB"
"""What is said of an image that is above `small_bounds`."""


class ScriptedServer:
    """Answers each connection as its script says; `requests` holds what came.

    What a client breaks off is no fault.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self.sent = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.closed = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            request = connection.recv(65536)
            self.requests.append(request)
            self.script(connection, request)

    def close(self) -> None:
        self.closed.set()
        self.listener.close()

    def endless(self, connection: socket.socket, piece: bytes, pause: float = 0.0) -> None:
        """Send the same for ever, until the client has gone or the test is over."""
        while not self.closed.wait(pause):
            connection.sendall(piece)
            self.sent += len(piece)


Serve = Callable[[Script], ScriptedServer]


@pytest.fixture
def serve() -> Iterator[Callable[[Script], ScriptedServer]]:
    """Start servers with scripts."""
    servers: list[ScriptedServer] = []

    def started(script: Script) -> ScriptedServer:
        servers.append(ScriptedServer(script))
        return servers[-1]

    yield started
    for server in servers:
        server.close()


def body(data: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + data


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little time and few bytes for an image."""
    monkeypatch.setattr(retries, "WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(fetching, "SECONDS", 0.4)
    monkeypatch.setattr(fetching, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(bounds, "OVERHEAD", 1 << 18)


def failure(url: str, **given: Any) -> str:
    """What a URL fails of, within the deadline and the time of a busy machine."""
    started = time.monotonic()
    with pytest.raises(ImageError) as raised:
        fetch(url, **{"allow_private": True, **given})
    assert time.monotonic() - started < 3
    return str(raised.value)
