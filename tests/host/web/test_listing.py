"""Folders and patterns of a web server: what its pages link to."""

import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from blip2cli.host import retries, storage
from blip2cli.host.web import bounds, listing
from tests.host.web.conftest import Script, ScriptedServer, body

Serve = Callable[[Script], ScriptedServer]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that lists its folders."""
    root = tmp_path_factory.mktemp("site")
    for name in ("d/b.png", "d/a/c.png", "d/a/e/f.png", "d/.hidden/x.png", "d/a b.png", "outside.png"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root))) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_folder_is_what_its_pages_list(site: str) -> None:
    names = ["a%20b.png", "a/c.png", "a/e/f.png", "b.png"]
    for url in (f"{site}/d", f"{site}/d/"):
        assert list(storage.urls_below(url)) == [f"{site}/d/{name}" for name in names]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("d/*.png", ["d/a%20b.png", "d/b.png"]),
        ("d/*/[cd].png", ["d/a/c.png"]),
        ("*/b.png", ["d/b.png"]),
        ("d/a/**/*.png", ["d/a/c.png", "d/a/e/f.png"]),
        ("d/*.jpg", []),
    ],
)
def test_a_pattern_is_matched_name_by_name(site: str, pattern: str, names: list[str]) -> None:
    assert storage.urls_matching(f"{site}/{pattern}") == [f"{site}/{name}" for name in names]


def test_links_to_elsewhere_are_left_out(serve: Serve) -> None:
    links = ["../up.png", "/root.png", "http://other.example/d/x.png", "//other.example/d/x.png", "javascript:x()",
             "?sort=1", "http://[", "in.png#part", "in.png", "&amp;.png", "./", ""]  # fmt: skip
    page = "".join(f'<li><A class=x HREF="{link}">x</a>' for link in links).encode()
    server = serve(lambda connection, _: connection.sendall(body(page)))
    assert listing.files_below(f"{server.url}/d") == [f"{server.url}/d/&.png", f"{server.url}/d/in.png"]
    assert len(server.requests) == 1


def test_pages_without_end_are_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "WAITS", ())
    monkeypatch.setattr(listing, "SECONDS", 0.4)
    server = serve(lambda connection, _: connection.sendall(body(b"<a href=deeper/>x</a>")))
    started = time.monotonic()
    with pytest.raises(OSError, match=r"took longer than 0\.4 s"):
        listing.files_below(server.url)
    assert time.monotonic() - started < 3


def test_a_page_without_end_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "OVERHEAD", 1 << 18)
    monkeypatch.setattr(listing, "MOST_PAGE", 1 << 20)

    def script(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        server.endless(connection, b"<a href=x>" * 1000)

    server = serve(script)
    with pytest.raises(OSError, match="more than 1 MiB"):
        listing.files_below(server.url)


def test_more_links_than_are_listed_are_told(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_LINKS", 5)
    server = serve(lambda connection, _: connection.sendall(body(b"".join(b"<a href=%d>" % n for n in range(9)))))
    with pytest.raises(OSError, match="more than 5 links"):
        listing.files_below(server.url)
