"""URLs that are not valid, or are sent in other letters than they are written in."""

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from blip2cli.errors import ImageError
from blip2cli.host.web.faults import WebError
from blip2cli.host.web.urls import parsed, redirected
from blip2cli.images.fetch import fetch
from tests.host.web.conftest import Serve, body, failure

pytestmark = pytest.mark.usefixtures("small_bounds")


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


def test_a_redirect_from_https_to_http_is_not_followed() -> None:
    answer: Any = SimpleNamespace(status=301, headers={"Location": "http://example.org/a.png"})
    with pytest.raises(WebError, match="from https to http"):
        redirected(parsed("https://example.org/a.png"), answer)
    assert redirected(parsed("http://example.org/"), answer) == "http://example.org/a.png"
