"""Why a checkpoint is not found: what can be known is told at once, and what the hub answers is told as it is."""

import errno
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from blip2cli.errors import CheckpointError
from blip2cli.model.checkpoint.catalogue import PUBLISHED
from blip2cli.model.checkpoint.hub import NotCached, check_model_name, closest_name, hub_folder
from tests.conftest import Typed

Run = Callable[..., Typed]

ANSWERS = {
    "nobody/nothing": (401, "RepoNotFound"),
    "Salesforce/blip2-opt-2.7": (404, "RepoNotFound"),
    "somebody/gated": (403, "GatedRepo"),
    "somebody/private": (403, ""),
    "somebody/forbidden": (401, "InvalidToken"),
    "somebody/gone": (403, "DisabledRepo"),
    "somebody/teapot": (418, ""),
}
"""What the hub of these tests answers: status and code, by repository. Of all others no revision is known."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A hub on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = "/".join(self.path.split("/")[3:5])
            status, code = ANSWERS.get(name, (404, "RevisionNotFound"))
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def told(name: str, revision: str | None = None) -> str:
    with pytest.raises(CheckpointError) as error:
        hub_folder(name, revision, fetch=True)
    assert error.value.hint and "\n" not in error.value.message
    return f"{error.value.message} | {error.value.hint}"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("nobody/nothing", ["nothing of that name on the hub, or it is private", "--model FOLDER"]),
        ("Salesforce/blip2-opt-2.7", ["nothing of that name", "Did you mean Salesforce/blip2-opt-2.7b?"]),
        ("somebody/gated", ["it is gated", "Ask for access", "log in"]),
        ("somebody/private", ["does not allow it (HTTP 403)", "Log in"]),
        ("somebody/forbidden", ["HTTP 401", "token"]),
        ("somebody/gone", ["HTTP 403"]),
        ("somebody/teapot", ["HTTP 418", "later"]),
        ("somebody/other", ["has no revision v9", "--revision"]),
    ],
)
def test_what_the_hub_answers_is_told(
    server: str, monkeypatch: pytest.MonkeyPatch, name: str, parts: list[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server)
    message = told(name, "v9")
    assert all(part in message for part in parts), message


def test_a_hub_that_cannot_be_reached_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    assert "it is not cached, and the hub cannot be reached" in told("somebody/model")
    (cache / "models--somebody--model").mkdir(parents=True)
    assert "it is only partly cached" in told("somebody/model")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in told("somebody/model")


@pytest.mark.parametrize(
    ("number", "part"),
    [(errno.ENOSPC, "is full"), (errno.EDQUOT, "is full"), (errno.EROFS, "cannot be written")],
)
def test_a_disk_that_takes_nothing_is_told(
    cache: Path, monkeypatch: pytest.MonkeyPatch, number: int, part: str
) -> None:
    def download(*_: object, local_files_only: bool = False, **__: object) -> str:
        if local_files_only:
            raise FileNotFoundError
        try:
            raise OSError(number, "the disk says no")
        except OSError as error:
            raise RuntimeError("a thread of the download failed") from error

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    message = told("somebody/model")
    assert part in message and str(cache) in message and "HF_HOME" in message


def test_what_is_cached_without_a_tokenizer_is_fetched_again(
    opt_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(*_: object, local_files_only: bool = False, **__: object) -> str:
        asked.append(local_files_only)
        return str(tmp_path / "part" if local_files_only else opt_checkpoint)

    (tmp_path / "part").mkdir()
    for file in ("config.json", "model.safetensors"):
        (tmp_path / "part" / file).symlink_to(opt_checkpoint / file)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert hub_folder("somebody/model", None, fetch=True) == opt_checkpoint and asked == [True, False]
    with pytest.raises(NotCached):
        hub_folder("somebody/model", None, fetch=False)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("./nothing", ["there is no folder ./nothing"]),
        ("/nothing/here", ["there is no folder /nothing/here"]),
        ("~/models/mine", ["there is no folder"]),
        ("runs/one/step-100", ["there is no folder"]),
        ("nothing/", ["there is no folder"]),
        ("file.bin", ["is a file", "Give the folder"]),
        ("two words", ["is not a valid hub id"]),
        ("a--b", ["is not a valid hub id"]),
        ("", ["is not a valid hub id"]),
        ("https://hub.example/somebody/model", ["is a URL", "somebody/model"]),
        ("tinny", ["Did you mean tiny?"]),
        ("Tiny", ["Did you mean tiny?"]),
        ("blip2-opt-2.7b", ["Did you mean Salesforce/blip2-opt-2.7b?"]),
        ("blip2-flan-t5xl", ["Did you mean Salesforce/blip2-flan-t5-xl?"]),
    ],
)
def test_names_that_lead_nowhere_are_told_without_a_network(
    name: str, parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.bin").touch()
    with pytest.raises(CheckpointError) as error:
        check_model_name(name)
    assert all(part in f"{error.value.message} | {error.value.hint}" for part in parts), error.value


def test_names_that_may_be_right_are_let_through(cache: Path, tmp_path: Path) -> None:
    for known in PUBLISHED:
        check_model_name(known.name)
    for name in ("tiny", str(tmp_path), "somebody/model", "Salesforce/blip2-opt-2.7"):
        check_model_name(name)
    (cache / "models--tinny").mkdir(parents=True)
    check_model_name("tinny")  # it is in the cache


def test_the_nearest_name_is_one_that_is_known() -> None:
    assert closest_name("BLIP2-OPT-6.7B-coco") == "Salesforce/blip2-opt-6.7b-coco"
    assert closest_name("somebody/else") is None


def test_the_command_line_tells_it_before_torch_is_imported(tmp_path: Path) -> None:
    script = """
import sys
from blip2cli.cli import main
sys.argv = ["blip2", "caption", sys.argv[1], "--model", "tinny"]
try:
    main()
except SystemExit as end:
    print(end.code, [name for name in ("torch", "transformers") if name in sys.modules])
"""
    (tmp_path / "a.png").touch()
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert ran.stdout == "1 []\n" and "Did you mean tiny?" in ran.stderr and ran.stderr.count("\n") == 2


def test_every_command_tells_it(typed: Run, photos: Path) -> None:
    for command in (("caption",), ("caption", "--dry-run"), ("embed", "--out", "f.parquet")):
        ran = typed(*command, photos, "--model", "./nothing")
        assert ran.code == 1 and ran.err.startswith("blip2: there is no folder ./nothing\n")
    assert typed("models", "tinny").err.startswith("blip2: there is no folder tinny")
