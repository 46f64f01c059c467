"""Nothing that a user or a fault does to an output, or to what is kept beside it, is made worse by running again."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blip2cli.outputs import FORMATS
from blip2cli.outputs.commits import VERSION
from blip2cli.outputs.journal import Journal, read_journal
from tests.conftest import Typed
from tests.outputs.kept import files, hidden, lines, sign
from tests.outputs.registry import CASES, command, out_of, target, write_manifest

Run = Callable[..., Typed]
WITH_FILES = [case for case in CASES if FORMATS[case.partition("-")[0]].destination != "beside"]
"""Those whose files nobody else is meant to edit."""


def kept_of(case: str) -> Path:
    return target(case).journal_path


def refused(typed: Run, case: str, *words: object) -> str:
    """The first line of what is said; nothing may have changed."""
    out, kept = out_of(case), kept_of(case)
    before = files(out, kept)
    ran = typed(*command(case), "--resume", *words)
    assert ran.code == 2 and ran.err.startswith("blip2: ") and ran.err.count("\n") == 2, ran.err
    assert files(out, kept) == before
    return ran.err.splitlines()[0]


@pytest.mark.parametrize("case", CASES)
def test_other_columns_types_or_journals_are_refused_and_a_deleted_output_is_gone(typed: Run, case: str) -> None:
    write_manifest()
    assert typed(*command(case)).code == 3
    out, kept = out_of(case), kept_of(case)
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == [kept.name]
    assert not [path for path in Path(out).rglob(".*")], "nothing hidden is in a folder that others read"
    expected = files(out)
    assert typed(*command(case), "--resume").code == 3 and files(out) == expected
    write_manifest(rows=8, mood="gay")
    assert "column mood is new" in refused(typed, case)
    write_manifest(rows=8, note=7)
    assert "column note was string, is int64" in refused(typed, case)
    write_manifest()
    good = kept.read_bytes()
    for damage in (b"[]\n", b"null\n", b"\0" * 99, good.replace(b'"rows"', b'"rowz"'), good + b"5\n"):
        kept.write_bytes(damage)
        assert f"{kept} is damaged: " in refused(typed, case)
    kept.write_bytes(good)
    if case != "sidecar":  # whose texts are added to
        shutil.rmtree(out) if Path(out).is_dir() else Path(out).unlink()
        assert typed(*command(case)).code == 3 and files(out) == expected


def add_row(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b'{"image": "mine"}\n')


def lose_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def change_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def replace_by_nothing(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("edit", [add_row, lose_end, change_byte, replace_by_nothing])
@pytest.mark.parametrize("case", WITH_FILES)
def test_an_output_that_was_edited_is_refused(
    typed: Run, finished: Callable[[str], None], case: str, edit: Callable[[Path], None]
) -> None:
    finished(case)
    out = Path(out_of(case))
    main = out
    if out.is_dir():
        index = FORMATS[case.partition("-")[0]].index
        main = out / index if index else sorted(path for path in out.rglob("*") if path.is_file())[0]
    edit(main)
    if main.stat().st_size == 0 and main in (out, out / "metadata.jsonl"):
        return  # an empty file counts as none: the run starts
    for rows in (6, 8):  # nothing left to do, and something
        write_manifest(rows=rows)
        assert str(main) in refused(typed, case)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished outputs by format, as they are first asked for."""
    return {"root": tmp_path_factory.mktemp("outputs")}


@pytest.fixture
def finished(typed: Run, outputs: dict[str, Path], tmp_path: Path) -> Callable[[str], None]:
    """Have a finished output of a format in the working folder."""

    def make(case: str) -> None:
        if case not in outputs:
            write_manifest()
            assert typed(*command(case)).code == 3
            outputs[case] = outputs["root"] / case
            shutil.copytree(tmp_path, outputs[case])
        else:
            shutil.copytree(outputs[case], tmp_path, dirs_exist_ok=True)

    return make


@pytest.mark.parametrize("case", ["jsonl", "csv", "coco", "imagefolder", "parquet", "jsonl-shards"])
def test_what_was_added_to_an_unfinished_output_is_told_from_what_a_kill_leaves(
    typed: Run, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    write_manifest()
    assert typed(*command(case, "whole")).code in (2, 3)
    add = Journal.add

    def dying(self: Journal, commit: Any) -> None:
        if commit.finished:
            raise MemoryError
        add(self, commit)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "add", dying)
        assert typed(*command(case), "--commit-every", 0).code == 1
    out = Path(out_of(case))
    record = read_journal(kept_of(case))
    assert record and record.commit.rows and not record.commit.finished
    main = out / "metadata.jsonl" if case == "imagefolder" else out / "part-00099.jsonl" if "-" in case else out
    good = main.read_bytes() if main.exists() else None
    main.write_bytes((good or b"") + b"checked by hand\n")
    assert str(main) in refused(typed, case)
    main.unlink() if good is None else main.write_bytes(good)
    assert typed(*command(case), "--resume").code == 3


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("null", "not an object"),
        ("5", "not an object"),
        ("[]", "not an object"),
        ("{}", "was changed"),
        ('{"rows": 3}', "was changed"),
        ("[" * 100_000, "not JSON"),
        ("\x00\x01", "not JSON"),
        ("\udcff", "not JSON"),
        ({"rows": 3, "last": "a", "errors": 0, "finished": False, "state": {"size": 1}, "mood": 1}, "not a commit"),
        ({"rows": 3, "last": "a", "errors": 0, "finished": False}, "not a commit"),
        ({"rows": 3, "last": "a", "errors": 0, "finished": False, "state": {}}, "values that are not valid"),
        ({"rows": -3, "last": "a", "errors": 0, "finished": False, "state": {"size": 1}}, "values that are not valid"),
        ({"rows": 3, "last": "a", "errors": 0, "finished": False, "state": {"size": -1}}, "values that are not valid"),
        ({"rows": 3, "last": 7, "errors": 0, "finished": False, "state": {"size": 1}}, "values that are not valid"),
        (
            {"rows": 1 << 99, "last": "a", "errors": 0, "finished": False, "state": {"size": 1}},
            "values that are not valid",
        ),
        (
            {"rows": True, "last": "a", "errors": 0, "finished": False, "state": {"size": 1}},
            "values that are not valid",
        ),
        ({"rows": 3, "last": "a", "errors": 0, "finished": 1, "state": {"size": 1}}, "values that are not valid"),
        ({"shard": -1, "files": []}, "a shard is not"),
        ({"shard": 1, "files": 3}, "a shard is not"),
    ],
)
def test_a_damaged_journal_is_refused_in_words(typed: Run, line: Any, told: str) -> None:
    write_manifest()
    assert typed(*command("jsonl")).code == 3
    kept = hidden("o.jsonl")
    if isinstance(line, str):
        kept.write_bytes(b"".join(lines(kept)) + line.encode("utf-8", "surrogateescape") + b"\n")
    else:
        sign(kept, [*map(json.loads, lines(kept)), line])
    assert told in refused(typed, "jsonl")
    assert typed(*command("jsonl"), "--overwrite").code == 3


def test_a_journal_of_another_version_is_refused_in_words(typed: Run) -> None:
    write_manifest()
    assert typed(*command("jsonl")).code == 3
    kept = hidden("o.jsonl")
    kept.write_bytes(kept.read_bytes().replace(b'"blip2": %d' % VERSION, b'"blip2": 99'))
    assert "was written by another version of blip2 (99, not 2)" in refused(typed, "jsonl")
    kept.write_bytes(b'{"settings": {}}')
    assert "its first line is incomplete" in refused(typed, "jsonl")


def test_a_run_that_fails_before_its_first_commit_leaves_nothing(typed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest()
    for case in ("jsonl", "parquet", "webdataset"):
        with monkeypatch.context() as patched:
            patched.setattr(Journal, "add", lambda *given: (_ for _ in ()).throw(MemoryError))
            assert typed(*command(case)).code == 1
        left = {path.name for path in Path().iterdir()} - {"m.jsonl", out_of(case)}
        assert left == ({".o.jsonl.blip2"} if case == "jsonl" else set()), "rows without a commit are gone on with"
        if case == "jsonl":
            assert typed(*command(case), "--resume").code == 3
            hidden("o.jsonl").unlink()
            Path("o.jsonl").unlink()
        shutil.rmtree(out_of(case), ignore_errors=True)
    assert typed(*command("jsonl"), "--model", "nowhere").code == 1
    assert {path.name for path in Path().iterdir()} == {"m.jsonl"}


@pytest.mark.parametrize("case", ["jsonl", "parquet", "parquet-shards", "imagefolder", "sidecar"])
def test_a_symbolic_link_given_as_the_output_stays_one(typed: Run, case: str) -> None:
    write_manifest()
    Path("real").mkdir()
    link, real = Path(out_of(case)), Path("real") / out_of(case)
    if not link.suffix:
        real.mkdir()
    link.symlink_to(real)  # dangling, for a file
    assert typed(*command(case)).code == 3
    assert link.is_symlink() and files(real)
    assert typed(*command(case), "--resume").code == 3
    if case != "sidecar":  # which only adds
        assert typed(*command(case, str(real))).code == 2, "it is there under its own name too"
    assert typed(*command(case), "--overwrite").code == 3 and link.is_symlink()
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


def test_links_that_lead_nowhere_or_elsewhere_are_refused(typed: Run) -> None:
    write_manifest()
    Path("a.jsonl").symlink_to("b.jsonl")
    Path("b.jsonl").symlink_to("a.jsonl")
    Path("c.jsonl").symlink_to("c.csv")
    Path("d.jsonl").symlink_to("no/d.jsonl")
    for name, told in (
        ("a.jsonl", "a.jsonl is a symbolic link that leads back to itself"),
        ("c.jsonl", "c.jsonl leads to c.csv, which has another suffix"),
        ("d.jsonl", "cannot write d.jsonl: there is no folder no"),
    ):
        ran = typed("caption", "m.jsonl", "--out", name)
        assert (ran.code, ran.err.splitlines()[0]) == (2, f"blip2: {told}")


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="this system has no /dev/stdout")
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/stderr", "/dev/fd/1", "/proc/self/fd/1", "/dev/null"])
@pytest.mark.parametrize("option", ["--out", "--summary"])
def test_what_a_process_has_open_is_not_replaced_by_a_file(typed: Run, name: str, option: str) -> None:
    before = os.lstat(name)
    ran = typed("caption", *command("jsonl")[1:2], option, name, "--overwrite")
    assert ran.code == 2 and f"blip2: {name} is a " in ran.err and ran.err.count("\n") == 2
    assert os.lstat(name).st_mode == before.st_mode


def test_two_names_of_one_output_have_one_lock(typed: Run) -> None:
    from blip2cli.outputs.lock import locked

    write_manifest()
    assert typed(*command("jsonl")).code == 3
    Path("here").symlink_to(".")
    Path("link.jsonl").symlink_to("o.jsonl")
    os.link("o.jsonl", "hard.jsonl")
    with locked(hidden("o.jsonl"), Path("o.jsonl"), Path("o.jsonl")):
        for name in ("o.jsonl", "here/o.jsonl", "link.jsonl", "hard.jsonl"):
            ran = typed(*command("jsonl", name), "--overwrite")
            assert (ran.code, ran.err.splitlines()[0]) == (2, f"blip2: {name} is being written by another run")
    assert typed(*command("jsonl", "here/o.jsonl"), "--resume").code == 3


def test_a_file_system_without_locks_is_told_as_such(typed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    def without(*given: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    write_manifest()
    monkeypatch.setattr(fcntl, "flock", without)
    ran = typed(*command("jsonl"))
    assert ran.code == 2 and ran.err.startswith("blip2: cannot lock o.jsonl: No locks available\n")
    assert {path.name for path in Path().iterdir()} == {"m.jsonl"}


def test_the_summary_may_not_take_the_place_of_anything(typed: Run) -> None:
    write_manifest()
    Path("s.json").symlink_to("m.jsonl")
    os.link("m.jsonl", "hard.json")
    Path("shards").mkdir()
    for out, summary, told in (
        ("o.jsonl", ".o.jsonl.blip2", ".o.jsonl.blip2 is a name that blip2 uses for its own files"),
        ("o.jsonl", "o.jsonl", "--out and --summary are both o.jsonl"),
        ("o.jsonl", "s.json", "m.jsonl is an input, and cannot be the output too"),
        ("o.jsonl", "hard.json", "m.jsonl is an input, and cannot be the output too"),
        ("shards", "shards/s.json", "--summary shards/s.json is in the folder of the shards"),
        ("o.jsonl", "shards", "shards is a folder"),
    ):
        ran = typed("caption", "m.jsonl", "--out", out, "--summary", summary)
        assert (ran.code, ran.err.splitlines()[0]) == (2, f"blip2: {told}")


def test_what_may_not_be_written_is_told_alike_by_all_commands(typed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest()
    for name in ("o.jsonl", "o.html", "o.json"):
        Path(name).write_text("mine")
    Path("r.jsonl").write_text('{"image": "a.jpg", "question": "what?", "answer": "yes"}\n')
    assert typed("embed", "m.jsonl", "--features", "itc", "--out", "f.parquet").code == 3
    access = os.access
    denied = {"o.jsonl", "o.html", "o.json"}
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name not in denied and access(path, mode))
    for words, name in (
        (("caption", "m.jsonl", "--out", "o.jsonl", "--overwrite"), "o.jsonl"),
        (("caption", "m.jsonl", "--summary", "o.json"), "o.json"),
        (("report", "r.jsonl", "--out", "o.html", "--overwrite"), "o.html"),
        (("score", "r.jsonl", "-r", "r.jsonl", "--out", "o.json", "--overwrite"), "o.json"),
        (("search", "f.parquet", "a circle", "--out", "o.jsonl", "--overwrite"), "o.jsonl"),
    ):
        ran = typed(*words)
        assert ran.err == (
            f"blip2: cannot write {name}: it is not writable\n"
            "       Choose another folder, or change its permissions.\n"
        )
        assert ran.code == 2 and Path(name).read_text() == "mine"
