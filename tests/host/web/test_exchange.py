"""One exchange by http, with servers that do all they can to take long, to send much, or to lead elsewhere."""

import email.utils
import gzip
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from blip2cli.errors import ImageError
from blip2cli.host import storage
from blip2cli.host.web import exchange
from blip2cli.images import fetch as fetching
from blip2cli.images.fetch import fetch
from tests.host.web.conftest import Script, ScriptedServer, body

Serve = Callable[[Script], ScriptedServer]
OK = b"HTTP/1.1 200 OK\r\n"
REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: /next\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(fetching, "SECONDS", 0.4)
    monkeypatch.setattr(fetching, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(exchange, "OVERHEAD", 1 << 18)


def failure(url: str, **given: Any) -> str:
    """What a URL fails of, within the deadline and the time of a busy machine."""
    started = time.monotonic()
    with pytest.raises(ImageError) as raised:
        fetch(url, **{"allow_private": True, **given})
    assert time.monotonic() - started < 3
    return str(raised.value)


SLOW = "unreadable: took longer than 0.4 s"
LARGE = "too-large: more than 1 MiB"


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


def test_a_redirect_from_https_to_http_is_not_followed() -> None:
    answer: Any = SimpleNamespace(status=301, headers={"Location": "http://example.org/a.png"})
    with pytest.raises(exchange.WebError, match="from https to http"):
        exchange._redirected(exchange._parsed("https://example.org/a.png"), answer)
    assert exchange._redirected(exchange._parsed("http://example.org/"), answer) == "http://example.org/a.png"


def test_a_redirect_may_hold_letters_of_any_script(serve: Serve) -> None:
    def script(connection: socket.socket, request: bytes) -> None:
        if b"GET /%C3%BC.png " in request:
            connection.sendall(body(b"there"))
        else:
            connection.sendall("HTTP/1.1 301 Moved\r\nLocation: /ü.png\r\n\r\n".encode())

    assert fetch(serve(script).url, allow_private=True) == b"there"


# ---- what is sent ----


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_what_comes_compressed_is_unpacked_up_to_the_bound(
    serve: Serve, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    data = [pack(b"." * size) for size in (1 << 20, (1 << 20) + 1)]
    served = iter([*data, data[0][:-10]])
    server = serve(lambda connection, _: connection.sendall(body(next(served), f"Content-Encoding: {encoding}")))
    assert fetch(server.url, allow_private=True) == b"." * (1 << 20)
    assert b"Accept-Encoding: identity" in server.requests[0]
    assert failure(server.url) == LARGE


@pytest.mark.parametrize(("encoding", "fault"), [("br", "Content-Encoding 'br'"), ("gzip", "the compressed data are")])
def test_what_cannot_be_unpacked_is_told(serve: Serve, encoding: str, fault: str) -> None:
    server = serve(lambda connection, _: connection.sendall(body(b"junk", f"Content-Encoding: {encoding}")))
    assert failure(server.url).startswith(f"unreadable: {fault}")


def test_interim_answers_before_the_last_are_passed_over(serve: Serve) -> None:
    server = serve(lambda connection, _: connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + body(b"x")))
    assert fetch(server.url, allow_private=True) == b"x"


def test_a_file_that_says_how_large_it_is_is_refused_at_once(serve: Serve) -> None:
    server = serve(lambda connection, _: connection.sendall(OK + b"Content-Length: 1048577\r\n\r\n"))
    assert failure(server.url) == LARGE


def test_what_a_server_says_reaches_an_error_without_control_characters(serve: Serve) -> None:
    server = serve(lambda connection, _: connection.sendall(b"\x1b[31mred\x07\r\n\r\n"))
    assert failure(server.url) == "unreadable: BadStatusLine: ?[31mred?"


# ---- Retry-After ----


def busy(serve: Serve, status: str, *waits: str) -> ScriptedServer:
    """A server that is busy so often, and then answers."""
    answers = iter([*(body(b"", f"Retry-After: {wait}", status=status) for wait in waits), body(b"at last")])
    return serve(lambda connection, _: connection.sendall(next(answers)))


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Busy"])
def test_a_wait_that_a_server_asks_for_is_heeded(serve: Serve, monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    slept: list[float] = []
    monkeypatch.setattr(exchange.time, "sleep", slept.append)
    monkeypatch.setattr(fetching, "SECONDS", 20.0)
    at = email.utils.formatdate(time.time() + 9, usegmt=True)
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert fetch(busy(serve, status, "2", at, past).url, allow_private=True) == b"at last"
    assert slept[0] == 2 and 7 < slept[1] <= 9 and slept[2] == 0


@pytest.mark.parametrize("wait", ["1", "3600", "9" * 60, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_wait_longer_than_the_deadline_is_told_and_not_waited_for(serve: Serve, wait: str) -> None:
    server = busy(serve, "429 Too Many Requests", wait)
    seconds = "1" if wait == "1" else "3,600" if wait == "3600" else "86,400"
    assert failure(server.url) == f"unreadable: HTTP 429; the server asks to wait {seconds} s"
    assert len(server.requests) == 1


@pytest.mark.parametrize("wait", ["soon", "-5", "1e9", "inf", "", "9" * 5000, "Fri, 99 Foo 2020", "\u0664"])
def test_a_wait_that_makes_no_sense_is_passed_over(serve: Serve, wait: str) -> None:
    answers = iter([f"HTTP/1.1 503 Busy\r\nRetry-After: {wait}\r\n\r\n".encode(), body(b"at last")])
    server = serve(lambda connection, _: connection.sendall(next(answers)))
    if wait == "9" * 5000:
        assert "86,400" in failure(server.url)
    else:
        assert fetch(server.url, allow_private=True) == b"at last"


# ---- URLs ----

URLS = (
    "http://[",
    "http://[url]http://example.com/a.png[/url]",
    "http://example.com]/a.png",
    "http://[::1/a.png",
    "http://[::1]]/",
    "http://[v1.x]/",
    "http://",
    "http:///a.png",
    "http://:80/",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:-1/",
    "http://127.0.0.1:x/",
    "http://127.0.0.1:٣/",
    "http://a\0b/",
    "http://a b/",
    "http://a\nHost: b/\r\n\r\n",
    "http://a\x7fb/",
    "http://a..b/",
    "http://.a/",
    f"http://{'a' * 64}.example/",
    f"http://{'ü' * 100}.example/",
    "http://\ud83d.example/a.png",
    "http://ℂ㏂⑩／@a/",
    "http://user:secret@127.0.0.1/",
    "http://user@127.0.0.1/",
    f"http://127.0.0.1/{'a' * 10_000_000}",
    f"http://{'a.' * 100_000}b/",
    "HTTP://[",
    "https://[",
    "http://%31%32%37.0.0.1:1/",
    "nonsense://a",
    "://a",
    "",
)


@pytest.mark.parametrize("url", URLS, ids=lambda url: ascii(url)[:40])
def test_every_url_that_fails_is_an_image_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    told = failure(url)
    assert told.partition(":")[0] in ("unsupported", "unreadable") and len(told) < 200 and told.isprintable()
    assert "secret" not in told


def test_letters_of_any_script_are_sent_by_their_codes(serve: Serve) -> None:
    server = serve(lambda connection, _: connection.sendall(body(b"x")))
    for path in ("/\ud83d", "/\0", "/\x85a", "/a\\b", "/a%", "//double", "/😀?q=\u2028#frag"):
        try:
            assert fetch(server.url + path, allow_private=True) == b"x"
        except ImageError as error:
            assert "\ud83d" in path and error.error.kind == "unsupported"
    lines = [request.split(b"\r\n")[0] for request in server.requests]
    assert lines == [
        b"GET /%00 HTTP/1.1",
        b"GET /%C2%85a HTTP/1.1",
        b"GET /a%5Cb HTTP/1.1",
        b"GET /a% HTTP/1.1",
        b"GET //double HTTP/1.1",
        b"GET /%F0%9F%98%80?q=%E2%80%A8 HTTP/1.1",
    ]


# ---- names and addresses ----


def test_the_address_that_is_judged_is_the_one_connected_to(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads elsewhere when it is looked up again gains nothing: it is looked up once."""
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

    monkeypatch.setattr(exchange.socket, "socket", Recording)
    monkeypatch.setattr(storage, "WAITS", ())
    assert failure(f"http://rebinding.example:{port}/", allow_private=False) == "unreadable: Connection refused"
    assert looked_up == ["rebinding.example"] and connected == ["93.184.215.14"] and server.requests == []
    assert "private network" in failure(f"http://rebinding.example:{port}/", allow_private=False)


def test_of_several_addresses_only_public_ones_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = ["10.0.0.1", "127.0.0.1"]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert failure("http://a.example/", allow_private=False) == (
        "unreadable: a.example is on a private network, not fetched"
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


# ---- TLS ----


def test_a_handshake_that_does_not_end_is_given_up(serve: Serve) -> None:
    server = serve(lambda connection, _: server.endless(connection, b"", 0.05))
    assert failure(server.url.replace("http:", "https:")) == SLOW


def test_a_server_that_speaks_no_tls_is_told(serve: Serve) -> None:
    server = serve(lambda connection, _: connection.sendall(body(b"x")))
    told = failure(server.url.replace("http:", "https:"))
    assert told.startswith("unreadable: ") and "SSL" in told


def test_certificates_are_checked() -> None:
    context = exchange._tls()
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname


# ---- object stores ----


@pytest.mark.parametrize(
    "fault", [RuntimeError("any"), ValueError("bad\x1b bucket"), KeyError("x"), TimeoutError(), OSError("no")]
)
def test_whatever_an_object_store_raises_is_an_image_error(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    def failing(*_: object) -> bytes:
        raise fault

    monkeypatch.setattr(storage, "read", failing)
    assert failure("s3://bucket/a.png").startswith("unreadable: ")


def test_an_object_store_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(storage, "read", lambda *_: over.wait(10))
    assert failure("s3://bucket/a.png") == SLOW
    over.set()


def test_a_store_whose_package_is_missing_costs_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "SECONDS", 20.0)
    assert "the package for gs:// is not installed. Install it: pip install" in failure("gs://bucket/a.png")
