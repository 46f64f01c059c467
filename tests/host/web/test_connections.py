"""Which addresses a name may lead to, and whom a connection is made to."""

import socket
import ssl
import threading
from typing import Any

import pytest

from blip2cli.host import retries
from blip2cli.host.web import connections
from blip2cli.images.fetch import fetch
from tests.host.web.conftest import SLOW, Serve, body, failure

pytestmark = pytest.mark.usefixtures("small_bounds")


def test_the_address_that_is_judged_is_the_one_connected_to(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads elsewhere when it is looked up again gains nothing: it is looked
    up once."""
    server = serve(lambda connection, _: connection.sendall(body(b"x")))
    port = int(server.url.rpartition(":")[2])
    looked_up: list[str] = []

    def rebinding(host: str, *_: object, **__: object) -> list[Any]:
        looked_up.append(host)
        address = "93.184.215.14" if len(looked_up) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    connected: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", rebinding)

    class Recording(socket.socket):
        def connect(self, address: Any) -> None:
            connected.append(address[0])
            raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(connections.socket, "socket", Recording)
    monkeypatch.setattr(retries, "WAITS", ())
    assert failure(f"http://rebinding.example:{port}/", allow_private=False) == "unreadable: Connection refused"
    assert looked_up == ["rebinding.example"] and connected == ["93.184.215.14"] and server.requests == []
    assert "private network" in failure(f"http://rebinding.example:{port}/", allow_private=False)


def test_of_several_addresses_only_public_ones_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = ["10.0.0.1", "127.0.0.1"]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert failure("http://a.example/", allow_private=False) == (
        "unreadable: a.example is on a private network, not fetched without --allow-private"
    )


def test_a_name_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(10))
    assert failure("http://a.example/") == SLOW
    over.set()


def test_a_name_that_is_not_there_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []

    def nowhere(host: str, *_: object, **__: object) -> list[Any]:
        looked_up.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    assert failure("http://gone.example/") == "unreadable: Name or service not known"
    assert looked_up == ["gone.example"]


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_no_proxy_is_asked(serve: Serve, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A proxy would look up names by itself, and so lead to private networks."""
    proxy = serve(lambda connection, _: connection.sendall(body(b"by proxy")))
    server = serve(lambda connection, _: connection.sendall(body(b"directly")))
    monkeypatch.setenv(name, proxy.url)
    assert fetch(server.url, allow_private=True) == b"directly" and proxy.requests == []


def test_a_handshake_that_does_not_end_is_given_up(serve: Serve) -> None:
    server = serve(lambda connection, _: server.endless(connection, b"", 0.05))
    assert failure(server.url.replace("http:", "https:")) == SLOW


def test_a_server_that_speaks_no_tls_is_told(serve: Serve) -> None:
    server = serve(lambda connection, _: connection.sendall(body(b"x")))
    told = failure(server.url.replace("http:", "https:"))
    assert told.startswith("unreadable: ") and "SSL" in told


def test_certificates_are_checked() -> None:
    context = connections.tls()
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
