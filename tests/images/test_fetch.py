"""URLs in manifests: what is fetched, what is refused, and what becomes of bad servers."""

import http.server
import json
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from blip2cli.errors import ImageError
from blip2cli.host import retries, storage
from blip2cli.host.web import connections
from blip2cli.images import fetch as fetching
from blip2cli.images.fetch import fetch
from tests.conftest import Typed, rows_of
from tests.host.web.conftest import SLOW, failure

KINDS = ("unsupported", "unreadable", "missing", "empty")
CIRCLE = (Path(__file__).parents[2] / "docs" / "examples" / "red-circle.png").read_bytes()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the path says: /200/..., /404, /503-then-200, /to?URL, /short, /slow, /large."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        what = self.path.split("/")[1]
        if what.startswith("to?"):
            self.answer(302, b"", Location=self.path.partition("?")[2])
        elif what == "busy" and self.asked.count(self.path) < 3:
            self.answer(503, b"")
        elif what in ("404", "410", "403"):
            self.answer(int(what), b"")
        elif what == "short":
            self.answer(200, CIRCLE, length=len(CIRCLE) + 10)
        elif what == "slow":
            self.send_response(200)
            self.end_headers()
            while not self.wfile.closed:
                self.wfile.write(b".")
                time.sleep(0.02)
        else:
            self.answer(200, CIRCLE)

    def answer(self, code: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that has gone is no news."""


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a web server on loopback."""
    Handler.asked = []
    with Server(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "WAITS", (0.0, 0.0, 0.0))


def test_a_file_is_fetched_also_behind_a_redirect_and_a_busy_server(server: str) -> None:
    for path in ("a.png", f"to?{server}/a.png", "busy", "ü b.png?q=ñ", "a%20b.png"):
        assert fetch(f"{server}/{path}", allow_private=True) == CIRCLE
    assert Handler.asked.count("/busy") == 3
    assert Handler.asked[-2:] == ["/%C3%BC%20b.png?q=%C3%B1", "/a%20b.png"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0.0.0.0", "[::ffff:127.0.0.1]"])
def test_loopback_is_never_asked_under_any_of_its_names(server: str, host: str) -> None:
    with pytest.raises(ImageError, match=r"^unreadable: .* private network"):
        fetch(server.replace("127.0.0.1", host) + "/a.png")
    assert Handler.asked == []


def test_a_redirect_into_a_private_network_is_not_followed(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "is_public", lambda address: address == "127.0.0.1")
    assert fetch(f"{server}/a.png") == CIRCLE
    with pytest.raises(ImageError, match=r"private network"):
        fetch(f"{server}/to?{server.replace('127.0.0.1', '127.0.0.2')}/secret")
    assert "/secret" not in Handler.asked


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_a_redirect_to_another_scheme_is_not_followed(server: str, target: str) -> None:
    with pytest.raises(ImageError, match=r"^unreadable"):
        fetch(f"{server}/to?{target}", allow_private=True)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("404", "missing: nothing at that URL"),
        ("410", "missing: nothing at that URL"),
        ("403", "unreadable: HTTP 403"),
        ("short", "unreadable: 10 bytes are missing"),
    ],
)
def test_what_a_server_refuses_is_told(server: str, path: str, error: str) -> None:
    with pytest.raises(ImageError) as raised:
        fetch(f"{server}/{path}", allow_private=True)
    assert str(raised.value) == error


def test_a_server_that_drips_is_given_up(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "SECONDS", 0.3)
    with pytest.raises(ImageError, match=r"^unreadable: took longer than 0\.3 s"):
        fetch(f"{server}/slow", allow_private=True)  # which never ends by itself


def test_what_is_too_large_is_given_up(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MAX_BYTES", len(CIRCLE) - 1)
    with pytest.raises(ImageError, match=r"^too-large"):
        fetch(f"{server}/a.png", allow_private=True)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "memory://a", "zip://a::s3://b/c", "s3://b/c::file:///etc/x"])
def test_schemes_that_a_manifest_may_not_name(url: str) -> None:
    with pytest.raises(ImageError, match=r"^unsupported: a URL of"):
        fetch(url, allow_private=True)


def test_images_named_by_their_urls(typed: Callable[..., Typed], server: str) -> None:
    ran = typed("caption", f"{server}/a.png", f"{server}/404/b.png")
    assert [row["caption"] for row in ran.rows] == ["a red circle", None]
    assert ran.rows[1]["error"] == "missing: nothing at that URL"


def test_urls_in_a_manifest_are_fetched_when_that_is_allowed(typed: Callable[..., Typed], server: str) -> None:
    Path("m.csv").write_text(f"url\n{server}/a.png\n")
    assert "--allow-remote to fetch the URLs" in typed("caption", "m.csv").err
    refused = typed("caption", "m.csv", "--allow-remote").rows
    assert "private network" in refused[0]["error"] and Handler.asked == []
    assert typed("caption", "m.csv", "--allow-remote", "--allow-private").rows[0]["caption"] == "a red circle"


def test_urls_of_any_kind_are_error_rows_and_the_run_can_be_resumed(typed: Callable[..., Typed], server: str) -> None:
    bad = ["http://[", "http://[url]http://a.png[/url]", f"{server}:99999/a.png", "http://a\0b/", "HTTP://", "hf://"]
    names = [f"{server}/a.png", *bad, "gs://bucket/a.png", "s3://", "s3://a b/c.png", "S3://", f"{server}/b.png"]
    Path("m.jsonl").write_text("".join(json.dumps({"image": name}) + "\n" for name in names))
    command = ("caption", "m.jsonl", "--allow-remote", "--allow-private", "--out", "o.jsonl")
    assert typed(*command).code == 3
    rows = rows_of(Path("o.jsonl").read_text())
    assert [row["image"] for row in rows] == names
    assert [row["caption"] for row in rows] == ["a red circle", *[None] * (len(names) - 2), "a red circle"]
    assert all(row["error"].partition(": ")[0] in KINDS for row in rows[1:-1])
    assert typed(*command, "--resume").code == 3 and rows_of(Path("o.jsonl").read_text()) == rows
    assert typed(*command, "--resume", "--retry-errors").code == 3 and rows_of(Path("o.jsonl").read_text()) == rows


def test_manifests_and_archives_behind_urls(typed: Callable[..., Typed], tmp_path: Path) -> None:
    from functools import partial

    Path("a.png").write_bytes(CIRCLE)
    Path("m.csv").write_text("image\na.png\n")
    with tarfile.open("a.tar", "w") as archive:
        archive.add("a.png")
    serve = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    serve.func.log_message = lambda *_: None  # type: ignore[method-assign]
    with Server(("127.0.0.1", 0), serve) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        root = f"http://127.0.0.1:{running.server_port}"
        ran = typed("caption", f"{root}/m.csv?signed=1", f"{root}/a.tar")
        running.shutdown()
    assert [(row["image"], row["caption"]) for row in ran.rows] == [
        ("a.png", "a red circle"),
        (f"{root}/a.tar/a.png", "a red circle"),
    ]


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
    monkeypatch.setattr(fetching, "SECONDS", 0.4)
    monkeypatch.setattr(storage, "read", lambda *_: over.wait(10))
    assert failure("s3://bucket/a.png") == SLOW
    over.set()


def test_a_store_whose_package_is_missing_costs_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "SECONDS", 20.0)
    assert "the package for gs:// is not installed. Install it: pip install" in failure("gs://bucket/a.png")
