"""One exchange by http, with servers that do all they can to take long, to send much, or
to lead elsewhere."""

import socket
import time

import pytest

from blip2cli.images import fetch as fetching
from blip2cli.images.fetch import fetch
from tests.host.web.conftest import LARGE, OK, SLOW, Serve, body, failure

pytestmark = pytest.mark.usefixtures("small_bounds")

REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: /next\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        pytest.param(b"HTTP/1.1 2", b"0", id="status"),
        pytest.param(OK + b"X: ", b"x", id="header"),
        pytest.param(OK, b"X: y\r\n", id="headers"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="continue"),
        pytest.param(REDIRECT, b"X: y\r\n", id="redirect"),
        pytest.param(OK + b"\r\n", b".", id="body"),
        pytest.param(CHUNKED, b"1\r\nx\r\n", id="chunks"),
        pytest.param(CHUNKED + b"1;", b"x", id="extension"),
        pytest.param(CHUNKED + b"0\r\n", b"X: y\r\n", id="trailers"),
        pytest.param(b"", b"", id="nothing"),
    ],
)
def test_a_server_that_drips_is_given_up_wherever_it_is(serve: Serve, head: bytes, piece: bytes) -> None:
    def script(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(head)
        server.endless(connection, piece, 0.05)

    server = serve(script)
    assert failure(server.url) == SLOW


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 100, id="continue"),
        pytest.param(OK + b"\r\n", b"." * 65536, id="body"),
        pytest.param(CHUNKED, b"10000\r\n" + b"." * 65536 + b"\r\n", id="chunks"),
        pytest.param(CHUNKED, (b"1;" + b"x" * 60000 + b"\r\n.\r\n"), id="extensions"),
        pytest.param(CHUNKED + b"0\r\n", b"X: " + b"y" * 60000 + b"\r\n", id="trailers"),
    ],
)
def test_a_server_that_sends_without_end_is_given_up_wherever_it_does(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, head: bytes, piece: bytes
) -> None:
    monkeypatch.setattr(fetching, "SECONDS", 20.0)

    def script(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(head)
        server.endless(connection, piece)

    server = serve(script)
    assert failure(server.url) == LARGE
    assert server.sent < 64 << 20, "what the buffers of the system hold, and no more"


@pytest.mark.parametrize("piece", [b"X: y\r\n" * 1000, b"X: " + b"y" * 65536], ids=["count", "length"])
def test_headers_without_end_are_given_up(serve: Serve, piece: bytes) -> None:
    def script(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(OK)
        server.endless(connection, piece)

    server = serve(script)
    assert failure(server.url).startswith("unreadable: ")
    assert server.sent < 64 << 20


def test_the_body_of_a_redirect_is_not_read(serve: Serve) -> None:
    def script(connection: socket.socket, request: bytes) -> None:
        if b"GET /next " in request:
            connection.sendall(body(b"there"))
        else:
            connection.sendall(REDIRECT + b"\r\n")
            server.endless(connection, b"." * 65536)

    server = serve(script)
    assert fetch(server.url, allow_private=True) == b"there"
    assert server.sent < 64 << 20


def test_redirects_share_one_deadline_and_are_counted(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def script(connection: socket.socket, request: bytes) -> None:
        number = int(request.split(b" ")[1].strip(b"/") or 0)
        time.sleep(pause)
        connection.sendall(b"HTTP/1.1 307 On\r\nLocation: /%d\r\n\r\n" % (number + 1))

    pause, server = 0.1, serve(script)
    assert failure(server.url) == SLOW
    server.requests.clear()
    pause = 0.0
    monkeypatch.setattr(fetching, "SECONDS", 20.0)
    assert failure(server.url) == "unreadable: more than 10 redirects"
    assert len(server.requests) == 11


@pytest.mark.parametrize(
    ("location", "fault"),
    [
        ("/start", "unreadable: redirects in a loop"),
        ("#part", "unreadable: redirects in a loop"),
        ("file:///etc/passwd", "unreadable: redirected to file:, not followed"),
        ("ftp://127.0.0.1/x", "unreadable: redirected to ftp:, not followed"),
        ("javascript:alert(1)", "unreadable: redirected to javascript:, not followed"),
        ("http://[", "unreadable: redirected to a URL that is not valid"),
        ("http://a:b@127.0.0.1/", "unsupported: a URL with a user name, which is not supported"),
        ("", "unreadable: HTTP 302 without a target"),
    ],
)
def test_redirects_that_are_not_followed(serve: Serve, location: str, fault: str) -> None:
    server = serve(lambda connection, _: connection.sendall(body(b"", f"Location: {location}", status="302 Found")))
    assert failure(f"{server.url}/start") == fault


def test_a_redirect_may_hold_letters_of_any_script(serve: Serve) -> None:
    def script(connection: socket.socket, request: bytes) -> None:
        if b"GET /%C3%BC.png " in request:
            connection.sendall(body(b"there"))
        else:
            connection.sendall("HTTP/1.1 301 Moved\r\nLocation: /ü.png\r\n\r\n".encode())

    assert fetch(serve(script).url, allow_private=True) == b"there"
