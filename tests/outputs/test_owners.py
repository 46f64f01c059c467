"""Whose a file is: two images never share a text file, and nothing that is not a run's own is written over."""

import contextlib
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blip2cli.outputs.journal import Journal
from tests.conftest import Typed
from tests.outputs.kept import Killed, texts

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
Run = Callable[..., Typed]

RED, TEAL = ((EXAMPLES / f"{name}.png").read_bytes() for name in ("red-circle", "teal-triangle"))


def put(**files: bytes) -> None:
    """Files in a folder s: a_png for a.png."""
    Path("s").mkdir(exist_ok=True)
    for name, data in files.items():
        Path("s", name.replace("_", ".")).write_bytes(data)


def lines(name: str) -> list[dict]:
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


@pytest.fixture
def twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images that differ in their suffix only."""
    monkeypatch.chdir(tmp_path)
    put(a_jpg=RED, a_png=TEAL)


SHARED = "conflict: a.txt is the text file of a.jpg"


@pytest.mark.parametrize(
    "options",
    [(), ("--existing", "overwrite"), ("--out", "s"), ("--out", "texts"), ("--out", "s", "--existing", "append")],
    ids=" ".join,
)
def test_of_two_images_of_one_stem_the_second_is_an_error_row(
    typed: Run, twins: None, options: tuple[str, ...]
) -> None:
    for _ in range(2):
        ran = typed("caption", "s", "--format", "sidecar", *options)
        errors = ran.rows or lines(f"{options[1]}.errors.jsonl")
        assert ran.code == 3 and [row["error"] for row in errors if row["error"]] == [SHARED]
        assert set(texts(".").values()) <= {"a red circle", "a red circle, a red circle"}


def test_a_text_file_has_one_owner_however_it_is_spelled(typed: Run, twins: None) -> None:
    Path("link").symlink_to("s")
    Path("m.jsonl").write_text('{"image": "s/a.jpg"}\n{"image": "link/../s/./a.png"}\n{"image": "link/a.jpg"}\n')
    ran = typed("caption", "m.jsonl", "--format", "sidecar")
    again = "conflict: a.txt is the text file of an earlier row"
    assert [row["error"] for row in ran.rows] == [None, SHARED, again] and texts("s") == {"a.txt": "a red circle"}


def test_where_case_is_ignored_names_that_differ_in_it_share_a_text_file(
    typed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(A_jpg=RED, a_png=TEAL)
    monkeypatch.setattr("blip2cli.outputs.text_files._ignores_case", lambda folder: True)
    ran = typed("caption", "s", "--format", "sidecar")
    assert [row["error"] for row in ran.rows] == [None, "conflict: a.txt is the text file of a.jpg"]


@pytest.mark.parametrize("kill", range(1, 5))
def test_a_killed_run_that_appends_still_knows_whose_text_file_is_whose(
    typed: Run, twins: None, monkeypatch: pytest.MonkeyPatch, kill: int
) -> None:
    put(a_txt=b"tag")
    words = ["caption", "s", "--format", "sidecar", "--existing", "append", "--out", "s"]
    words += ["--batch-size", "1", "--workers", "0", "--commit-every", "0"]
    add, left = Journal.add, [kill]

    def dying(self: Journal, commit: Any) -> None:
        left[0] -= 1
        add(self, commit)
        if left[0] == 0:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "add", dying)
        with contextlib.suppress(Killed):
            typed(*words)
    assert typed(*words, "--resume").code == 3
    assert texts("s") == {"a.txt": "tag, a red circle"}
    assert [row["error"] for row in lines("s.errors.jsonl")] == [SHARED]


def test_a_resumed_run_that_appends_refuses_another_input(typed: Run, twins: None) -> None:
    words = ["caption", "--format", "sidecar", "--existing", "append", "--out", "texts"]
    assert typed(*words, "s/a.jpg").code == 0
    ran = typed(*words, "s/a.png", "--resume")
    assert ran.code == 2 and "the input has changed: row 1 was s/a.jpg, is s/a.png" in ran.err


@pytest.mark.parametrize("existing", ["skip", "overwrite", "append"])
@pytest.mark.parametrize("image", [RED, b"P3\n# made by hand\n2 1\n255\n255 0 0 0 255 0\n"], ids=["PNG", "PPM"])
def test_an_image_in_a_text_files_place_is_left_as_it_was(typed: Run, twins: None, existing: str, image: bytes) -> None:
    put(photo_txt=image, b_png=TEAL, b_txt=image)
    Path("m.jsonl").write_text('{"image": "s/photo.txt"}\n{"image": "s/b.png"}\n')
    where = ("--out", "s") if existing == "append" else ()
    assert typed("caption", "m.jsonl", "--format", "sidecar", "--existing", existing, *where).code == 3
    assert Path("s/photo.txt").read_bytes() == Path("s/b.txt").read_bytes() == image


@pytest.mark.parametrize("existing", ["skip", "overwrite"])
def test_a_folder_or_a_pipe_in_a_text_files_place_is_an_error_row(typed: Run, twins: None, existing: str) -> None:
    put(b_png=TEAL, c_png=RED)
    Path("s/a.txt").mkdir()
    os.mkfifo("s/b.txt")
    ran = typed("caption", "s", "--format", "sidecar", "--existing", existing)
    faults = [f"conflict: {name}" for name in ("a.txt is a folder", "b.txt is not a file")]
    assert ran.code == 3 and [row["error"] for row in ran.rows] == [faults[0], SHARED, faults[1], None]
    assert "3 conflict" in ran.err and Path("s/c.txt").read_text() == "a red circle"


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_has_the_hidden_name_of_a_text_file_is_not_written_to(typed: Run, twins: None, kind: str) -> None:
    Path("mine").write_text("mine")
    put(b_png=TEAL)
    hidden = Path("s/.b.txt.tmp.blip2")
    hidden.symlink_to("../mine") if kind == "link" else os.mkfifo(hidden)
    typed("caption", "s/b.png", "--format", "sidecar")
    assert Path("mine").read_text() == "mine" and Path("s/b.txt").read_text() == "a teal triangle"
    assert not Path("s/b.txt").is_symlink() and not hidden.exists()


def linked(name: str) -> None:
    os.mkdir("elsewhere")
    os.symlink("elsewhere", name)


REFUSED = [(make, name) for make in (os.mkfifo, os.mkdir) for name in (".o.jsonl.blip2", "o.errors.jsonl")]


@pytest.mark.parametrize(
    ("make", "name"), [*REFUSED, (os.mkfifo, ".o.parquet.blip2-parts"), (linked, ".o.parquet.blip2-parts")]
)
def test_what_is_in_place_of_a_file_or_folder_of_ours_is_refused(
    typed: Run, twins: None, name: str, make: Callable[[str], None]
) -> None:
    make(name)
    where = (name[1:].partition(".blip2")[0],) if name.startswith(".") else ("o", "--format", "sidecar")
    ran = typed("caption", "s/a.png", "--out", *where)
    assert ran.code in (1, 2) and len(ran.err.splitlines()) == 2 and name in ran.err
    assert "should not happen" not in ran.err and not list(Path().glob("elsewhere/*"))


def test_an_image_without_a_caption_keeps_no_old_text_if_texts_are_replaced(typed: Run, twins: None) -> None:
    put(b_png=RED, b_txt=b"mine")
    words = ["caption", "s/b.png", "--format", "sidecar", "--rank-by", "itc", "--threshold", "1", "--num-beams", "1"]
    assert typed(*words, "--existing", "skip").code == 0 and Path("s/b.txt").read_text() == "mine"
    ran = typed(*words, "--existing", "overwrite")
    assert ran.code == 0 and ran.rows[0]["caption"] is None and not Path("s/b.txt").exists()


def test_a_text_in_utf_16_is_one(typed: Run, twins: None) -> None:
    put(a_txt="mine".encode("utf-16"))
    assert [row["image"] for row in typed("caption", "s", "--format", "sidecar").rows] == ["s/a.png"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("s.errors.jsonl", ("--format", "sidecar", "--out", "s")),
        ("s/metadata.errors.jsonl", ("--format", "imagefolder", "--out", "s", "--overwrite")),
        ("s/metadata.jsonl", ("--format", "imagefolder", "--out", "s", "--overwrite")),
        ("*.errors.jsonl", ("--format", "sidecar", "--out", "s")),
    ],
)
def test_a_list_of_failed_rows_is_not_written_over_while_it_is_read(
    typed: Run, twins: None, given: str, words: tuple[str, ...]
) -> None:
    name = given.replace("*", "s")
    Path(name).write_text(json.dumps({"image": str(EXAMPLES / "red-circle.png")}) + "\n")
    ran = typed("caption", given, *words)
    assert ran.code == 2 and f"{name} is an input, and cannot be the output too" in ran.err
    assert Path(name).read_text().count("red-circle") == 1


@pytest.mark.parametrize("given", ["w/00000.tar", "w/*.tar", "{w,w}/00000.tar", "link/00000.tar", "?/0000*.tar"])
def test_shards_that_are_read_are_not_replaced(typed: Run, twins: None, given: str) -> None:
    Path("w").mkdir()
    Path("link").symlink_to("w")
    with tarfile.open("w/00000.tar", "w") as archive:
        archive.add("s/a.png", "a.png")
    before = Path("w/00000.tar").read_bytes()
    ran = typed("caption", given, "--format", "webdataset", "--out", "w", "--overwrite")
    assert ran.code == 2 and "is an input in the output's folder w" in ran.err
    assert Path("w/00000.tar").read_bytes() == before


def test_a_copy_never_takes_the_place_of_an_image_that_is_there(typed: Run, twins: None) -> None:
    Path("ds/images").mkdir(parents=True)
    Path("ds/images/000000000-s_a.png").write_bytes(RED)
    words = ["caption", "s/a.png", "ds", "--format", "imagefolder", "--out", "ds", "--overwrite"]
    for _ in range(2):  # its own copy of the first time is an image of the input in the second
        assert typed(*words).code == 0
        assert Path("ds/images/000000000-s_a.png").read_bytes() == RED
        assert Path("ds/images/000000000-s_a-1.png").read_bytes() == TEAL
        rows = {row["file_name"]: row["caption"] for row in lines("ds/metadata.jsonl")}
        assert rows["images/000000000-s_a.png"] == "a red circle"
        assert rows["images/000000000-s_a-1.png"] == "a teal triangle"
