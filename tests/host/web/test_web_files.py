"""Files of web servers that the user names: read by spans where the server gives them,
and within bounds where not."""

import os
import re
import socket
import time
from collections.abc import Callable

import pytest

from blip2cli.host import retries, spans, storage
from blip2cli.host.web import bounds, files
from tests.host.web.conftest import Script, ScriptedServer, body

Serve = Callable[[Script], ScriptedServer]
DATA = bytes(range(256)) * 20


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "WAITS", (0.0,))
    monkeypatch.setattr(spans, "BLOCK", 1000)
    monkeypatch.setattr(files, "SPAN_SECONDS", 0.4)
    monkeypatch.setattr(files, "WHOLE_SECONDS", 0.4)
    monkeypatch.setattr(files, "MOST_WHOLE", 1 << 20)
    monkeypatch.setattr(bounds, "OVERHEAD", 1 << 18)


def span_of(request: bytes) -> tuple[int, int]:
    start, last = re.findall(rb"Range: bytes=(\d+)-(\d+)", request)[0]
    return int(start), int(last) + 1


def partial(request: bytes, data: bytes = DATA) -> bytes:
    """The answer of a server that gives spans."""
    start, stop = span_of(request)
    part = data[start:stop]
    told = f"Content-Range: bytes {start}-{start + len(part) - 1}/{len(data)}"
    return body(part, told, status="206 Partial Content")


def failure(url: str) -> str:
    started = time.monotonic()
    with pytest.raises(OSError) as raised, storage.open_binary(url) as file:
        file.read()
    assert time.monotonic() - started < 3
    return raised.value.strerror or ""


def test_a_file_is_read_by_spans_and_never_whole(serve: Serve) -> None:
    server = serve(lambda connection, request: connection.sendall(partial(request)))
    with storage.open_binary(server.url) as file:
        assert file.seek(-10, os.SEEK_END) == len(DATA) - 10 and file.read() == DATA[-10:]
        assert file.seek(2500) and file.read(1200) == DATA[2500:3700]
    spans = [span_of(request) for request in server.requests]
    assert spans[0] == (0, 1) and all(stop - start <= 2000 for start, stop in spans)
    with storage.open_binary(server.url) as file:
        assert file.read() == DATA
    assert storage.exists(server.url)


def test_a_server_without_spans_gives_the_file_whole_and_once(serve: Serve) -> None:
    server = serve(lambda connection, _: connection.sendall(body(DATA)))
    with storage.open_binary(server.url) as file:
        assert file.read(5) == DATA[:5] and file.seek(3000) and file.read() == DATA[3000:]
    assert len(server.requests) == 2 and storage.exists(server.url)


def test_an_empty_file_is_empty(serve: Serve) -> None:
    def script(connection: socket.socket, request: bytes) -> None:
        connection.sendall(body(b"", status="416 Range" if b"Range:" in request else "200 OK"))

    with storage.open_binary(serve(script).url) as file:
        assert file.read() == b""


def test_a_span_that_fails_is_asked_for_again(serve: Serve) -> None:
    faults = iter([b"", body(b"", "Retry-After: 0", status="503 Busy")])
    server = serve(lambda connection, request: connection.sendall(next(faults, None) or partial(request)))
    with storage.open_binary(server.url) as file:
        assert file.read() == DATA


@pytest.mark.parametrize("spans", [True, False])
def test_a_file_without_end_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch, spans: bool) -> None:
    monkeypatch.setattr(files, "SPAN_SECONDS", 20.0)
    monkeypatch.setattr(files, "WHOLE_SECONDS", 20.0)

    def script(connection: socket.socket, request: bytes) -> None:
        told = b"206 On\r\nContent-Range: bytes 0-0/5000000000" if spans else b"200 OK"
        connection.sendall(b"HTTP/1.1 " + told + b"\r\n\r\n")
        server.endless(connection, b"." * 65536)

    server = serve(script)
    told = failure(server.url)
    assert told.startswith("more than ") and ("download it first" in told) is not spans
    assert server.sent < 64 << 20


def test_a_server_that_drips_a_span_is_given_up(serve: Serve) -> None:
    def script(connection: socket.socket, request: bytes) -> None:
        connection.sendall(partial(request)[:-1])
        server.endless(connection, b"", 0.05)

    server = serve(script)
    assert failure(server.url) == "took longer than 0.4 s"


def test_a_file_that_changes_while_it_is_read_is_told(serve: Serve) -> None:
    versions = iter([DATA, DATA[:-1]])
    server = serve(lambda connection, request: connection.sendall(partial(request, next(versions))))
    assert failure(server.url) == "the file changed while it was read"


@pytest.mark.parametrize(("status", "told"), [("404 None", "nothing at that URL"), ("403 No", "HTTP 403")])
def test_what_a_server_refuses_is_told(serve: Serve, status: str, told: str) -> None:
    server = serve(lambda connection, _: connection.sendall(body(b"", status=status)))
    assert failure(server.url) == told
    if status.startswith("404"):
        assert not storage.exists(server.url)


@pytest.mark.parametrize("url", ["http://[", "HTTP://", "https://a b/m.csv", "http://\ud83d/m.csv"])
def test_a_url_that_cannot_be_parsed_is_an_os_error(url: str) -> None:
    assert failure(url).startswith("the URL is not valid")
