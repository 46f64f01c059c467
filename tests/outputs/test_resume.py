"""A run that was stopped and is resumed ends with the output of one that was not: each row once, in order."""

import json
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from blip2cli.host.files import new_temporary
from tests.conftest import Start, Typed, rows_of
from tests.outputs.kept import committed, hidden, lines, parts

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
IMAGES = sorted(str(path) for path in EXAMPLES.rglob("*.png"))
ROWS = 450
QUESTIONS = ("what shape is it?", "what colour is it?", "is there a circle?")
Run = Callable[..., Typed]


def write_manifest(path: Path, start: int, stop: int) -> None:
    """Add rows to a manifest, every seventh of them bad."""
    with open(path, "a", encoding="utf-8") as file:
        for number in range(start, stop):
            image = f"gone{number}.png" if number % 7 == 3 else IMAGES[number % len(IMAGES)]
            file.write(json.dumps({"image": image, "id": number}) + "\n")


def command(manifest: object, out: object) -> list[object]:
    asked = [word for question in QUESTIONS for word in ("-p", question)]
    return ["vqa", manifest, *asked, "--out", out, "--dtype", "fp32", "--workers", 0, "--batch-size", 8]


@pytest.fixture(scope="module", params=["o.jsonl", "o.parquet"])
def killed(request: pytest.FixtureRequest, forked: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run over ROWS rows that was killed part-way, beside its manifest."""
    folder = tmp_path_factory.mktemp("killed")
    write_manifest(folder / "m.jsonl", 0, ROWS)
    running = forked(folder, *command("m.jsonl", request.param), "--model", "tiny", "--commit-every", 0, "--quiet")
    out = folder / request.param
    while running.exitcode is None and committed(out).rows < 60:
        time.sleep(0.01)
    running.kill()
    running.join()
    assert running.exitcode == -signal.SIGKILL
    assert 60 <= committed(out).rows < ROWS and not committed(out).finished
    return folder / request.param


@pytest.fixture
def state(killed: Path, tmp_path: Path) -> Path:
    """A copy of what was left behind, to go on from."""
    shutil.copytree(killed.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / killed.name


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    """What a run that was not stopped writes, kept by the name of its output."""
    return {}


def whole(typed: Run, name: str, undisturbed: dict[str, Any]) -> Any:
    if name not in undisturbed:
        assert typed(*command("m.jsonl", f"whole-{name}")).code == 3
        undisturbed[name] = contents(Path(f"whole-{name}"))
    return undisturbed[name]


def contents(out: Path) -> Any:
    """The bytes of a JSONL file; the rows and schema of a Parquet file."""
    if out.suffix == ".jsonl":
        return out.read_bytes()
    table = pq.read_table(out)
    return table.schema, table.to_pylist()


def nothing(out: Path) -> None:
    """As it was left."""


def torn_row(out: Path) -> None:
    """Half a row behind the last commit."""
    if out.suffix == ".jsonl":
        with open(out, "ab") as file:
            file.write(b'{"image": "torn", "id": 9')


def torn_commit(out: Path) -> None:
    """Half a line at the end of the journal."""
    with open(hidden(out), "ab") as file:
        file.write(b'{"rows": 99999, "las')


def lost_commit(out: Path) -> None:
    """The rows are there, and the last commit is not."""
    hidden(out).write_bytes(b"".join(lines(hidden(out))[:-1]))


def temporary_files(out: Path) -> None:
    """Half-written files that were never given their names."""
    new_temporary(out).write_bytes(b"PAR1")
    if parts(out).exists():
        new_temporary(parts(out) / "part-99999999.parquet").write_bytes(b"PAR1")


@pytest.mark.parametrize("damage", [nothing, torn_row, torn_commit, lost_commit, temporary_files])
def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(
    typed: Run, state: Path, undisturbed: dict[str, Any], damage: Callable[[Path], None]
) -> None:
    damage(state)
    earlier = committed(state).rows
    ran = typed(*command("m.jsonl", state.name), "--resume", "--summary", "s.json")
    assert ran.code == 3
    assert contents(state) == whole(typed, state.name, undisturbed)
    summary = json.loads(Path("s.json").read_text())
    assert summary["resumed_at"] + summary["images"] == ROWS
    assert summary["resumed_at"] == earlier, "what was committed is not computed again"
    left = {path.name for path in state.parent.iterdir() if state.name in path.name and "whole" not in path.name}
    assert left - {new_temporary(state).name} == {state.name, hidden(state).name}


def test_rows_of_an_image_with_several_questions_are_never_torn_apart(state: Path) -> None:
    done = committed(state)
    if state.suffix == ".jsonl":
        ids = [row["id"] for row in rows_of(state.read_bytes()[: done.state["size"]].decode())]
    else:
        written = sorted(parts(state).glob("*.parquet"))[: done.state["parts"]]
        ids = [number for part in written for number in pq.read_table(part)["id"].to_pylist()]
    assert ids == [number for number in range(done.rows) for _ in QUESTIONS]


@pytest.mark.parametrize(("name", "limit"), [("o.jsonl", 3000), ("o.parquet", 3000), ("o.jsonl", 10)])
def test_a_disk_that_fills_up_ends_the_run_and_nothing_is_lost(
    typed: Run, tmp_path: Path, name: str, limit: int
) -> None:
    write_manifest(tmp_path / "m.jsonl", 0, 40)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        ran = typed(*command("m.jsonl", name), "--commit-every", 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ran.code == 1
    assert ran.err.startswith(f"blip2: cannot write {name}") and ran.err.count("\n") == 2
    assert typed(*command("m.jsonl", name), "--resume").code == 3
    assert typed(*command("m.jsonl", f"whole-{name}")).code == 3
    assert contents(Path(name)) == contents(Path(f"whole-{name}"))


@pytest.mark.parametrize("name", ["o.jsonl", "o.parquet"])
def test_a_finished_run_is_left_alone(typed: Run, tmp_path: Path, name: str) -> None:
    write_manifest(tmp_path / "m.jsonl", 0, 6)
    assert typed(*command("m.jsonl", name)).code == 3
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (Path(name), hidden(name))}
    ran = typed(*command("m.jsonl", name), "--resume")
    assert ran.code == 3, "an error row of before counts"
    assert ran.err.startswith(f"0 rows to {name}, 6 before (3 with errors), 0 with errors")
    assert (Path(name).stat().st_mtime_ns, Path(name).stat().st_ino) == before[Path(name)]
    assert (hidden(name).stat().st_mtime_ns, hidden(name).stat().st_ino) == before[hidden(name)]


@pytest.mark.parametrize("name", ["o.jsonl", "o.parquet"])
def test_rows_added_to_the_input_are_done_by_resuming(typed: Run, tmp_path: Path, name: str) -> None:
    for stop, before in ((4, 0), (9, 4), (15, 9)):
        write_manifest(tmp_path / "m.jsonl", before, stop)
        assert typed(*command("m.jsonl", name), "--resume").code == 3
    assert typed(*command("m.jsonl", f"whole-{name}")).code == 3
    assert contents(Path(name)) == contents(Path(f"whole-{name}"))


def test_a_higher_limit_goes_on_and_a_lower_one_does_nothing(typed: Run, tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.jsonl", 0, 9)
    for limit in (2, 5, 3, 9):
        assert typed(*command("m.jsonl", "o.jsonl"), "--limit", limit, "--resume").code in (0, 3)
        lines = Path("o.jsonl").read_text().count("\n")
        assert lines == 3 * max(limit, 5 if limit == 3 else 0)
    typed(*command("m.jsonl", "whole.jsonl"))
    assert Path("o.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


def test_resuming_with_other_settings_is_refused_and_the_difference_named(typed: Run) -> None:
    image, questions = IMAGES[0], Path("q.txt")
    questions.write_text("what shape is it?\n")
    first = ("vqa", image, "--questions", "q.txt", "--out", "o.jsonl", "--dtype", "fp32")
    assert typed(*first).code == 0
    before = Path("o.jsonl").read_bytes()
    for words, difference in (
        (("--num-beams", 3), "num_beams was 1, is 3"),
        (("--template", "{}?"), "template was None, is '{}?'"),
        (("--seed", 1, "--max-new-tokens", 4), "max_new_tokens was None, is 4; seed was 0, is 1"),
        (("--dtype", "bf16"), "dtype was 'fp32', is 'bf16'"),
        (("-p", "what?"), "prompt was [], is ['what?']"),
    ):
        ran = typed(*first, *words, "--resume")
        assert ran.code == 2
        assert ran.err.splitlines()[0] == f"blip2: o.jsonl was started with other settings: {difference}"
        assert ran.err.count("\n") == 2
    questions.write_text("what colour is it?\n")
    ran = typed(*first, "--resume")
    assert ran.code == 2 and "other settings: questions was 'q.txt (" in ran.err
    assert Path("o.jsonl").read_bytes() == before


def test_resuming_with_what_does_not_change_rows_is_allowed(typed: Run, tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.jsonl", 0, 5)
    assert typed("caption", "m.jsonl", "--out", "o.jsonl", "--limit", 2).code == 0
    ran = typed("caption", "m.jsonl", "--out", "o.jsonl", "--resume", "--batch-size", 3, "--workers", 1, "--quiet")
    assert (ran.code, ran.err) == (3, "")
    assert [row["id"] for row in rows_of(Path("o.jsonl").read_text())] == list(range(5))


def test_resuming_with_a_changed_input_is_refused(typed: Run, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    for name in ("b.png", "c.png"):
        shutil.copy(IMAGES[0], folder / name)
    assert typed("caption", "p", "--out", "o.jsonl").code == 0
    shutil.copy(IMAGES[0], folder / "a.png")
    ran = typed("caption", "p", "--out", "o.jsonl", "--resume")
    assert ran.code == 2
    assert ran.err.startswith("blip2: the input has changed: row 2 was p/c.png, is p/b.png\n")
    shutil.rmtree(folder)
    folder.mkdir()
    shutil.copy(IMAGES[0], folder / "b.png")
    ran = typed("caption", "p", "--out", "o.jsonl", "--resume")
    assert ran.code == 2 and "row 2 was p/c.png, is missing" in ran.err


@pytest.mark.parametrize("name", ["o.jsonl", "o.parquet"])
def test_what_cannot_be_resumed_is_said(typed: Run, name: str) -> None:
    first = ("caption", IMAGES[0], "--out", name)
    assert typed(*first).code == 0
    kept = Path(name).read_bytes()
    hidden(name).unlink()
    ran = typed(*first, "--resume")
    assert ran.code == 2 and f"what belongs to it, .{name}.blip2, is missing" in ran.err
    Path(f"{name}.journal").touch()
    ran = typed(*first, "--resume")
    assert ran.code == 2 and "an earlier version of blip2, whose journal this version cannot read" in ran.err
    assert Path(name).read_bytes() == kept and not hidden(name).exists()


def test_resume_with_nothing_to_resume_simply_starts(typed: Run) -> None:
    assert typed("caption", IMAGES[0], "--out", "o.jsonl", "--resume").code == 0
    assert len(rows_of(Path("o.jsonl").read_text())) == 1


@pytest.mark.parametrize("name", ["o.jsonl", "o.parquet"])
def test_an_output_is_replaced_only_when_asked(typed: Run, name: str) -> None:
    first = ("caption", IMAGES[0], "--out", name)
    assert typed(*first).code == 0
    before = contents(Path(name))
    ran = typed("caption", IMAGES[1], "--out", name)
    assert ran.code == 2 and ran.err.startswith(f"blip2: {name} exists\n") and ran.err.count("\n") == 2
    assert contents(Path(name)) == before
    assert typed("caption", IMAGES[1], IMAGES[2], "--out", name, "--overwrite").code == 0
    assert contents(Path(name)) != before
    assert typed(*first, "--overwrite").code == 0
    assert contents(Path(name)) == before
