"""What a path really is, and writing that is whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from blip2cli.errors import OutputError, UsageError
from blip2cli.host.files import cannot_write, check_apart, check_new_file, new_temporary, real_path, write_atomically
from blip2cli.host.storage import READING_HINT, reading_hint


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_path_that_is_no_link_is_given_back_as_it_is() -> None:
    for name in ("o.jsonl", "no/such/folder", "/dev/shm/o.jsonl"):
        assert real_path(Path(name)) == Path(name)
    assert real_path(Path()) == Path.cwd() and real_path(Path("..")) == Path.cwd().parent


def test_a_file_is_written_where_its_link_leads() -> None:
    Path("real").mkdir()
    Path("link").symlink_to("second")
    Path("second").symlink_to("real/file")
    for data in (b"one", b"two"):
        write_atomically(Path("link"), data)
        assert Path("real/file").read_bytes() == data
    assert Path("link").is_symlink() and Path("second").is_symlink()
    assert [path.name for path in Path("real").iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["/proc/self/fd/1", "/proc/x", "/sys/x", "/dev/null", "loop"])
def test_what_is_not_a_file_is_refused(name: str) -> None:
    Path("loop").symlink_to("loop")
    with pytest.raises(UsageError):
        real_path(Path(name))


def test_a_temporary_file_that_somebody_has_put_there_is_not_followed() -> None:
    Path("mine").write_text("mine")
    new_temporary(Path("out")).symlink_to("mine")
    write_atomically(Path("out"), b"out")
    assert Path("mine").read_text() == "mine" and not Path("out").is_symlink()


def test_what_cannot_be_written_leaves_nothing_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    Path("out").write_text("before")
    with pytest.raises(OutputError, match="cannot write out: No space left on device") as raised:
        write_atomically(Path("out"), b"after")
    assert raised.value.hint.startswith("Free some space")
    assert Path("out").read_text() == "before" and [path.name for path in Path().iterdir()] == ["out"]
    for number, hint in ((errno.EROFS, "Choose another folder, or change"), (errno.ENAMETOOLONG, "Choose a shorter")):
        assert cannot_write("out", OSError(number, "")).hint.startswith(hint)


def test_outputs_inputs_and_folders_of_inputs_are_told_apart() -> None:
    Path("a").write_text("")
    os.link("a", "b")
    Path("f").mkdir()
    Path("f/in").write_text("")
    for outputs, inputs, told in (
        ({"--out": Path("b")}, ["a"], "a is an input"),
        ({"--out": Path("f")}, ["f/in"], "f/in is an input in the output's folder f"),
        ({"--out": Path("a"), "--summary": Path("b")}, [], "--out and --summary are both a"),
    ):
        with pytest.raises(UsageError, match=told):
            check_apart(outputs, inputs)
    check_apart({"--out": Path("c"), "--summary": Path("d")}, ["a", "-", "https://a/b", object()])


def test_a_new_file_replaces_nothing_unless_asked() -> None:
    Path("there").write_text("")
    with pytest.raises(UsageError, match="there exists"):
        check_new_file(Path("there"), overwrite=False)
    check_new_file(Path("there"), overwrite=True)
    with pytest.raises(UsageError, match="is a folder"):
        check_new_file(Path(), overwrite=True, example="page.html")
    with pytest.raises(UsageError, match="there is not a folder"):
        check_new_file(Path("there/x"), overwrite=True)


def test_what_may_not_be_read_has_one_hint() -> None:
    assert reading_hint(PermissionError(errno.EACCES, ""), "Is it a zip archive?") == READING_HINT
    assert reading_hint(OSError(errno.EIO, ""), "Is it a zip archive?") == "Is it a zip archive?"
