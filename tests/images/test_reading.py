"""A file system that stumbles is asked again; one that refuses is not."""

import builtins
import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blip2cli.errors import ImageError
from blip2cli.host import retries, storage
from blip2cli.host.retries import WAITS
from blip2cli.images.decode import read_file

Fail = Callable[[int, int], list[float]]


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Let the first so many reads fail with an error; gives the list of the waits between them."""

    def failing(code: int, times: int) -> list[float]:
        waits: list[float] = []
        left = [times]

        def opened(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] >= 0:
                raise OSError(code, os.strerror(code))
            return builtins.open(*arguments)

        monkeypatch.setattr(storage, "open", opened, raising=False)
        monkeypatch.setattr(retries.time, "sleep", waits.append)
        return waits

    return failing


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file with something in it."""
    file = tmp_path / "a.jpg"
    file.write_bytes(b"bytes")
    return str(file)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.EBUSY, errno.ENETRESET])
def test_an_error_that_passes_is_got_over(fail: Fail, path: str, code: int) -> None:
    waits = fail(code, 2)
    assert read_file(path) == b"bytes"
    assert waits == list(WAITS[:2]) == sorted(waits)


def test_an_error_that_does_not_pass_says_how_often_it_was_tried(fail: Fail, path: str) -> None:
    waits = fail(errno.EIO, 100)
    with pytest.raises(
        ImageError, match=re.escape(f"unreadable: {os.strerror(errno.EIO)}, tried {len(WAITS) + 1} times")
    ):
        read_file(path)
    assert waits == list(WAITS)


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR])
def test_an_error_for_good_is_not_tried_again(fail: Fail, path: str, code: int) -> None:
    waits = fail(code, 1)
    with pytest.raises(ImageError) as error:
        read_file(path)
    assert error.value.error.kind == ("missing" if code == errno.ENOENT else "unreadable")
    assert waits == [] and "tried" not in str(error.value)


def test_a_file_that_vanishes_between_attempts_is_missing(fail: Fail, path: str) -> None:
    fail(errno.ESTALE, 1)
    os.unlink(path)
    with pytest.raises(ImageError, match="missing"):
        read_file(path)
