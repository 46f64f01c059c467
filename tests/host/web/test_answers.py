"""What an answer holds, up to its bounds, and how long a busy server wants to be left
alone."""

import email.utils
import gzip
import time
import zlib
from collections.abc import Callable

import pytest

from blip2cli.host.web import exchange
from blip2cli.images import fetch as fetching
from blip2cli.images.fetch import fetch
from tests.host.web.conftest import LARGE, OK, ScriptedServer, Serve, body, failure

pytestmark = pytest.mark.usefixtures("small_bounds")


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
