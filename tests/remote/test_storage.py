"""Files behind URLs, read from an S3 server on loopback."""

import errno
import os
from typing import Any

import pytest

from blip2cli.errors import UsageError
from blip2cli.host import retries, spans, storage


def test_a_remote_file_reads_like_a_local_one(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "BLOCK", 1000)
    data = os.urandom(4567)
    s3.pipe_file("bucket/f.bin", data)
    with storage.open_binary("s3://bucket/f.bin") as file:
        assert file.read() == data
        assert file.seek(-67, os.SEEK_END) == 4500 and file.read() == data[4500:]
        assert file.seek(990) == 990 and file.read(20) == data[990:1010]
        assert file.seek(2500) and file.read(1) + file.read(3000) == data[2500:]
    assert storage.read("s3://bucket/f.bin", 5000, 10, 20) == data[10:30]
    with pytest.raises(OSError, match="4,567 bytes"):
        storage.read("s3://bucket/f.bin", 4566)


def test_folders_and_patterns(s3: Any) -> None:
    for name in ("d/b.jpg", "d/a/c.jpg", "d/.hidden/x.jpg", "e.jpg"):
        s3.pipe_file(f"bucket/{name}", b"x")
    assert (
        list(storage.urls_below("s3://bucket/d"))
        == list(storage.urls_below("s3://bucket/d/"))
        == ["s3://bucket/d/a/c.jpg", "s3://bucket/d/b.jpg"]
    )
    assert storage.urls_matching("s3://bucket/*/*.jpg") == ["s3://bucket/d/b.jpg"]
    assert storage.is_folder("s3://bucket/d") and not storage.is_folder("s3://bucket/e.jpg")
    assert storage.exists("s3://bucket/e.jpg") and not storage.exists("s3://bucket/f.jpg")


def test_what_is_not_there(s3: Any) -> None:
    with pytest.raises(FileNotFoundError):
        storage.open_binary("s3://bucket/gone.bin")
    with pytest.raises(OSError):
        storage.open_binary("s3://nowhere/gone.bin")


def test_a_block_that_fails_is_asked_for_again(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "WAITS", (0.0, 0.0))
    monkeypatch.setattr(spans, "BLOCK", 1000)
    data = os.urandom(2500)
    s3.pipe_file("bucket/f.bin", data)
    ask, left = s3.cat_file, [OSError(errno.ECONNRESET, "reset"), RuntimeError("any")]

    def failing(*given: Any, **named: Any) -> bytes:
        if left:
            raise left.pop()
        return bytes(ask(*given, **named))

    monkeypatch.setattr(s3, "cat_file", failing)
    with storage.open_binary("s3://bucket/f.bin") as file:
        assert file.read() == data and left == []
    left += [RuntimeError("broken")] * 3
    with storage.open_binary("s3://bucket/f.bin") as file, pytest.raises(OSError, match="RuntimeError: broken"):
        file.read()


@pytest.mark.parametrize(
    ("url", "told"),
    [("gs://b/x", "the package for gs:// is not installed"), ("nonsense://b/x", "Protocol not known: nonsense")],
)
def test_a_url_that_nothing_here_opens(url: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        storage.open_binary(url)
