"""Files that have to lie below a folder: what is let in, what is not, and what happens when links are exchanged."""

import os
from pathlib import Path

import pytest

from blip2cli.host.containment import is_below, open_below


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with files and links, beside one that it may not lead to."""
    for name in ("root/a/b.txt", "root-too/c.txt", "secret/s.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(name)
    root = tmp_path / "root"
    for name, target in {
        "inside": "a/b.txt", "up": "../secret/s.txt", "folder": "../secret", "absolute": tmp_path / "secret/s.txt",
        "around": "../root/a/b.txt", "loop": "loop", "gone": "../secret/gone.txt", "chain": "up",
    }.items():  # fmt: skip
        (root / name).symlink_to(target)
    (tmp_path / "link").symlink_to(root)
    return root


@pytest.mark.parametrize("name", ["a/b.txt", "a/../a/b.txt", "inside", "around", "../root/a/b.txt", "./a//b.txt"])
def test_what_lies_below_is_read_by_any_of_its_names(root: Path, name: str) -> None:
    for start in (root, root.parent / "link"):
        assert is_below(str(start), str(start / name))
        with open_below(str(start), str(start / name)) as file:
            assert file.read() == b"root/a/b.txt"


OUTSIDE = (
    "../secret/s.txt", "../root-too/c.txt", "up", "chain", "absolute", "folder/s.txt", "gone", "a/../../secret/s.txt",
    "/etc/passwd", "..", ".", "", "a/\0", "folder/../s.txt", "../secret/not-there",
)  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_does_not_lie_below_is_refused_whether_it_is_there_or_not(root: Path, name: str) -> None:
    assert not is_below(str(root), os.path.join(root, name))
    with pytest.raises(PermissionError, match="outside the image root"):
        open_below(str(root), os.path.join(root, name))


def test_what_is_missing_below_is_missing(root: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_below(str(root), str(root / "a/none.txt"))
    with pytest.raises(OSError):
        open_below(str(root), str(root / "loop"))


def test_pipes_and_folders_are_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "pipe")
    for name in ("pipe", "a"):
        with pytest.raises(OSError, match="not a regular file"):
            open_below(str(root), str(root / name))


@pytest.mark.parametrize("exchanged", ["a", "a/b.txt"])
def test_a_link_that_is_put_in_after_the_check_leads_nowhere(
    root: Path, monkeypatch: pytest.MonkeyPatch, exchanged: str
) -> None:
    (root.parent / "secret/b.txt").write_text("secret")
    open_now = os.open

    def exchange_first(path: str, *given: object, **named: object) -> int:
        if not (root / exchanged).is_symlink():
            (root / exchanged).rename(root / "away")
            (root / exchanged).symlink_to(root.parent / "secret" / Path(exchanged).relative_to("a"))
        return open_now(path, *given, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(os, "supports_dir_fd", {exchange_first})
        patched.setattr(os, "open", exchange_first)
        with pytest.raises(OSError) as raised:
            open_below(str(root), str(root / "a/b.txt"))
    assert not isinstance(raised.value, FileNotFoundError)


@pytest.mark.parametrize(
    ("root", "name", "below"),
    [
        ("s3://bucket/photos", "s3://bucket/photos/a/b.png", True),
        ("s3://bucket/photos/", "s3://bucket/photos/b.png", True),
        ("s3://bucket/photos", "s3://bucket/photos-too/b.png", False),
        ("s3://bucket/photos", "s3://bucket/secret.png", False),
        ("s3://bucket/photos", "s3://bucket/photos/../secret.png", False),
        ("https://a.org/photos", "https://a.org/photos/%2e%2e/secret.png", False),
        ("https://a.org/photos", "https://a.org/photos/..%5Csecret.png", False),
        ("https://a.org/photos", "https://a.org.example/photos/b.png", False),
        ("s3://bucket/photos", "/etc/hosts", False),
        ("photos", "s3://bucket/b.png", False),
    ],
)
def test_urls_are_compared_by_their_text(root: str, name: str, below: bool) -> None:
    assert is_below(root, name) is below
