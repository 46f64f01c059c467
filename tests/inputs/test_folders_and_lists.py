"""Which images a folder, a glob, a name or a list on stdin stands for, and in which order."""

import os
import sys
from io import BufferedReader, BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from blip2cli.errors import UsageError
from blip2cli.inputs import ColumnChoice, open_source


def names(*inputs: str, limit: int | None = None) -> list[str]:
    source = open_source(inputs, ColumnChoice(), limit)
    rows = list(source.rows())
    assert [row.index for row in rows] == list(range(len(rows)))
    assert source.count() in (None, len(rows))
    return [row.name for row in rows]


def touch(*paths: str) -> None:
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_is_walked_sorted_by_path_part_by_part() -> None:
    touch("p/b/1.jpg", "p/b-2.jpg", "p/b.jpg", "p/a/z/2.png", "p/a/10.png", "p/a/9.png", "p/c.jpg")
    assert names("p") == ["p/a/10.png", "p/a/9.png", "p/a/z/2.png", "p/b/1.jpg", "p/b-2.jpg", "p/b.jpg", "p/c.jpg"]


def test_any_case_of_suffix_counts_and_hidden_files_and_others_do_not() -> None:
    touch("p/A.JPG", "p/b.JpEg", "p/c.tif", "p/d.avif", "p/.e.jpg", "p/.git/f.jpg", "p/g.txt", "p/jpg", "p/h.jpg.part")
    assert names("p") == ["p/A.JPG", "p/b.JpEg", "p/c.tif", "p/d.avif"]


def test_names_are_as_typed() -> None:
    touch("p/a.jpg")
    for typed in ("p", "./p", "../" + Path.cwd().name + "/p", str(Path("p").absolute())):
        assert names(typed) == [f"{typed}/a.jpg"]
    assert names("p/") == ["p/a.jpg"]
    assert names(".") == ["./p/a.jpg"]


def test_links_to_folders_are_followed_but_never_round_in_circles() -> None:
    touch("p/a/1.jpg", "q/2.jpg")
    Path("p/a/up").symlink_to("..", target_is_directory=True)
    Path("p/self").symlink_to("self")
    Path("p/self.jpg").symlink_to("self.jpg")
    Path("p/other").symlink_to("../q", target_is_directory=True)
    Path("p/gone.jpg").symlink_to("nowhere.jpg")
    assert names("p") == ["p/a/1.jpg", "p/gone.jpg", "p/other/2.jpg", "p/self.jpg"]


def test_a_name_that_is_no_utf_8_is_shown_escaped_and_read_as_it_is() -> None:
    touch(os.fsdecode(b"p/caf\xe9.jpg"))
    row = next(open_source(["p"], ColumnChoice()).rows())
    assert row.name == "p/caf\\xe9.jpg"
    assert row.image is not None and row.image.path is not None and os.path.exists(row.image.path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_within_that_cannot_be_read_is_a_row() -> None:
    touch("p/a.jpg", "p/b/c.jpg", "p/d.jpg")
    Path("p/b").chmod(0)
    assert names("p") == ["p/a.jpg", "p/b", "p/d.jpg"]
    Path("p").chmod(0)
    with pytest.raises(UsageError, match="cannot read p: Permission denied"):
        names("p")
    Path("p").chmod(0o755)
    Path("p/b").chmod(0o755)


def test_a_folder_named_like_an_image_is_a_folder() -> None:
    touch("p/a.jpg/b.jpg")
    assert names("p") == names("p/a.jpg") == ["p/a.jpg/b.jpg"]


def test_globs() -> None:
    touch("p/b.jpg", "p/a.jpg", "p/c.txt", "p/q/d.png", "e[1].jpg")
    assert names("p/*") == ["p/a.jpg", "p/b.jpg", "p/q/d.png"]
    assert names("p/?.jpg") == ["p/a.jpg", "p/b.jpg"]
    assert names("**/*.png") == ["p/q/d.png"]
    assert names("**") == ["e[1].jpg", "p/a.jpg", "p/b.jpg", "p/q/d.png"]
    assert names("e[1].jpg") == ["e[1].jpg"], "a file of that very name goes first"


def test_several_inputs_keep_the_order_in_which_they_are_given() -> None:
    touch("z.jpg", "p/a.jpg", "y.png")
    Path("m.csv").write_text("path\np/a.jpg\n")
    assert names("z.jpg", "p", "m.csv", "y.png", "z.jpg") == ["z.jpg", "p/a.jpg", "p/a.jpg", "y.png", "z.jpg"]


def test_a_list_on_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = "a.jpg\n\nsub/b.png\r\nwith blanks .jpg \nno suffix\nlast.jpg"
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BufferedReader(BytesIO(listed.encode()))))
    assert names("-") == ["a.jpg", "sub/b.png", "with blanks .jpg ", "no suffix", "last.jpg"]


def test_limit_counts_over_all_inputs() -> None:
    touch("p/a.jpg", "p/b.jpg", "q/c.jpg", "q/d.jpg")
    assert names("p", "q", limit=3) == ["p/a.jpg", "p/b.jpg", "q/c.jpg"]
    assert open_source(["p", "q"], ColumnChoice(), 3).count() == 3
    assert names("p", "q", limit=9) == ["p/a.jpg", "p/b.jpg", "q/c.jpg", "q/d.jpg"]


def test_rows_from_a_place_on_are_numbered_as_in_the_whole() -> None:
    touch("p/a.jpg", "p/b.jpg", "p/c.jpg")
    source = open_source(["p"], ColumnChoice())
    assert [(row.index, row.name) for row in source.rows(1, "p/a.jpg")] == [(1, "p/b.jpg"), (2, "p/c.jpg")]
    assert list(source.rows(3, "p/c.jpg")) == []
    with pytest.raises(UsageError, match=r"row 1 was p/z\.jpg, is p/a\.jpg"):
        source.rows(1, "p/z.jpg")
    with pytest.raises(UsageError, match=r"row 4 was p/d\.jpg, is missing"):
        source.rows(4, "p/d.jpg")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere", "no such input: nowhere"),
        ("nowhere/*.jpg", "no images found: nowhere/*.jpg"),
        ("empty", "no images found in empty"),
        ("notes.md", "notes.md is neither an image nor a manifest"),
        ("*.md", "no images found: *.md"),
        ("notes.txt", "notes.txt is empty"),
        ("nonsense://b/a.csv", "cannot open nonsense://b/a.csv: ValueError: Protocol not known: nonsense"),
        ("", "no such input: "),
    ],
)
def test_what_cannot_be_an_input_is_named(given: str, message: str) -> None:
    touch("notes.txt", "notes.md", "empty/notes.txt")
    with pytest.raises(UsageError) as error:
        open_source([given], ColumnChoice())
    assert error.value.message == message and error.value.hint


def test_a_file_that_an_extra_would_read_is_read_with_it() -> None:
    pytest.importorskip("pillow_heif")
    touch("p/a.HEIC", "p/b.heif", "p/c.mpo", "p/d.j2k", "p/e.jpf", "p/f.qoi")
    assert len(names("p")) == 6 and names("p/a.HEIC") == ["p/a.HEIC"]


def test_without_the_extra_its_name_is_told(without_heif: None) -> None:
    touch("a.heic")
    with pytest.raises(UsageError) as refused:
        names("a.heic")
    assert refused.value.message == "cannot read a.heic: .heic needs another package"
    assert refused.value.hint == "Install it: pip install 'blip2cli[heif]'"
