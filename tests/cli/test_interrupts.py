"""SIGINT and SIGTERM end a run behind the rows in hand; what is committed stays."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from blip2cli.host.signals import SIGNALS, interruptible
from blip2cli.host.terminal import ChatTerminal
from blip2cli.model.blip2 import Blip2Model
from blip2cli.records import Batch
from tests.conftest import Start, Typed, rows_of

CIRCLE = Path(__file__).parents[2] / "docs" / "examples" / "red-circle.png"
ROWS = 1500
MORE = 40
"""Rows that are done once a run that was stopped is resumed: all that are left would take seconds."""

WORDS = ["caption", "m.csv", "--out", "o.jsonl", "--batch-size", "8"]
FINISHING = "blip2: warning: finishing the current rows; press Ctrl-C again to quit now"
RESUME = "Rows committed to --out are kept; run the same command with --resume to continue."
"""The hint where it is not known how many there are."""


@pytest.fixture
def started(forked: Start, tmp_path: Path) -> Start:
    """Start a run over ROWS rows, with these options too, and wait until it has committed some."""

    def start(*more: str) -> Any:
        (tmp_path / "m.csv").write_text("image\n" + f"{CIRCLE}\n" * ROWS)
        running = forked(tmp_path, *WORDS, "--model", "tiny", *more, "--commit-every", 0)
        while running.exitcode is None and not rows_committed(tmp_path):
            time.sleep(0.01)
        return running

    return start


def told_by(running: Any, folder: Path) -> list[str]:
    """The lines on stderr of a run that was forked, once it has ended."""
    running.join(60)
    return (folder / "told.txt").read_text().splitlines()


def rows_committed(folder: Path) -> int:
    """Rows of the last whole line of the journal; a commit may also be of none."""
    journal = folder / ".o.jsonl.blip2"
    lines = journal.read_text().split("\n")[:-1] if journal.exists() else []
    return json.loads(lines[-1])["rows"] if len(lines) > 1 else 0


def goes_on(folder: Path, typed: Callable[..., Typed]) -> None:
    """Check that what is there is what is committed, and that resuming goes on behind it."""
    done = rows_committed(folder)
    assert 0 < done < ROWS - MORE
    ran = typed(*WORDS, "--resume", "--limit", done + MORE)
    assert ran.code == 0 and ran.err.startswith(f"{MORE} rows to o.jsonl, {done:,} before")
    rows = rows_of((folder / "o.jsonl").read_text())
    assert [row["caption"] for row in rows] == ["a red circle"] * (done + MORE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_so_and_goes_on_when_resumed(
    tmp_path: Path, started: Start, typed: Callable[..., Typed], number: signal.Signals
) -> None:
    running = started("--workers", "2")
    if number == signal.SIGINT:  # as Ctrl-C does: to the workers too
        os.killpg(running.pid, number)
    else:
        os.kill(running.pid, number)
    loading, *told_lines, hint = told_by(running, tmp_path)
    assert running.exitcode == 130
    assert [loading, *told_lines] == ["Loading tiny", FINISHING, "blip2: interrupted"]
    kept = rows_committed(tmp_path)
    assert hint == (
        f"       {kept:,} of {ROWS:,} rows are kept in o.jsonl; run the same command with --resume to continue."
    )
    written = (tmp_path / "o.jsonl").read_text()
    assert len(rows_of(written)) == json.loads((tmp_path / ".o.jsonl.blip2").read_text().splitlines()[-1])["rows"]
    goes_on(tmp_path, typed)


def test_without_an_output_nothing_is_promised(typed: Callable[..., Typed], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("blip2cli.run.plan.make_task", stop)
    ran = typed("caption", CIRCLE)
    assert ran.err.splitlines() == [
        "blip2: interrupted",
        "       Nothing was kept; with --out, a run can be resumed.",
    ]
    assert typed("caption", CIRCLE, "--out", "o.jsonl").err.splitlines() == [
        "blip2: interrupted",
        f"       {RESUME}",
    ]


def test_a_closed_terminal_stops_a_run_as_ctrl_c_does(
    typed: Callable[..., Typed], monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Blip2Model.encode

    def hung_up(model: Blip2Model, batch: Batch) -> object:
        for _ in range(2):  # by the kernel, and by the shell
            signal.raise_signal(signal.SIGHUP)
        return encode(model, batch)

    monkeypatch.setattr(Blip2Model, "encode", hung_up)
    ran = typed("caption", CIRCLE, "--out", "o.jsonl")
    assert ran.code == 130 and len(rows_of(Path("o.jsonl").read_text())) == 1
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_ctrl_c_stops_at_once_unless_rows_are_kept(
    typed: Callable[..., Typed], monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Blip2Model.encode

    def interrupted(model: Blip2Model, batch: Batch) -> object:
        signal.raise_signal(signal.SIGINT)
        return encode(model, batch)

    monkeypatch.setattr(Blip2Model, "encode", interrupted)
    ran = typed("caption", CIRCLE)
    assert (ran.code, ran.out) == (130, "")
    assert ran.err == "blip2: interrupted\n       Nothing was kept; with --out, a run can be resumed.\n"
    ran = typed("caption", CIRCLE, "--out", "o.jsonl")
    assert ran.code == 130 and len(rows_of(Path("o.jsonl").read_text())) == 1
    assert ran.err.splitlines() == [
        FINISHING,
        "blip2: interrupted",
        "       1 of 1 rows are kept in o.jsonl; run the same command with --resume to continue.",
    ]
    Path("a.png").write_bytes(CIRCLE.read_bytes())
    ran = typed("caption", "a.png", "--format", "sidecar")
    assert (ran.code, Path("a.txt").read_text()) == (130, "a red circle")
    assert "\n       1 of 1 rows are kept in text files next to the images; run" in ran.err


def test_a_second_signal_leaves_at_once_and_the_run_can_go_on(
    tmp_path: Path, started: Start, typed: Callable[..., Typed]
) -> None:
    running = started("--workers", "0")
    os.kill(running.pid, signal.SIGINT)
    while running.exitcode is None and FINISHING not in (tmp_path / "told.txt").read_text():
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGTERM)
    told = told_by(running, tmp_path)
    assert running.exitcode == 130 and told[:3] == ["Loading tiny", FINISHING, "blip2: interrupted"]
    goes_on(tmp_path, typed)


def test_a_second_run_on_an_output_is_refused(tmp_path: Path, started: Start, typed: Callable[..., Typed]) -> None:
    running = started()
    try:
        ran = typed(*WORDS, "--resume")
    finally:
        running.kill()
        running.join()
    assert ran.code == 2
    assert ran.err == ("blip2: o.jsonl is being written by another run\n       Wait for it, or choose another --out.\n")
    goes_on(tmp_path, typed)


@pytest.mark.parametrize(
    ("words", "interrupted", "hint"),
    [
        (["search", "f.parquet", "x"], "blip2cli.commands.search.search", None),
        (["dedup", "f.parquet"], "blip2cli.commands.dedup.dedup", None),
        (["score", "r.jsonl", "-r", "r.json"], "blip2cli.commands.score.score", "No figures were written."),
        (["bench"], "blip2cli.commands.bench.own.measure_and_show", "The rows above are measured."),
        (["doctor"], "blip2cli.commands.doctor.examine_machine", None),
        (["models"], "blip2cli.commands.models.show", None),
    ],
)
def test_a_command_without_resume_does_not_promise_it(
    typed: Callable[..., Typed],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    interrupted: str,
    hint: str | None,
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    Path("r.jsonl").touch()
    monkeypatch.setattr(interrupted, stop)
    ran = typed(*words)
    assert ran.code == 130
    assert ran.err.splitlines() == ["blip2: interrupted", *([] if hint is None else [f"       {hint}"])]


@pytest.fixture
def terminable() -> Iterator[None]:
    """SIGTERM as a command has it from its first moment."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    interruptible()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def terminate(*_: object, **__: object) -> None:
    signal.raise_signal(signal.SIGTERM)


RESUMABLE = ["caption", str(CIRCLE), "--out", "o.jsonl"]


@pytest.mark.parametrize(
    ("words", "place", "hint"),
    [
        (RESUMABLE, "blip2cli.run.plan.make_task", RESUME),
        (RESUMABLE, "blip2cli.run.pipeline.load_model", RESUME),
        (RESUMABLE, "blip2cli.outputs.jsonl.JsonlOutput.finish", RESUME),
        (RESUMABLE, "blip2cli.run.summary.show_summary", RESUME),
        ([*RESUMABLE, "--devices", "cpu:2"], "blip2cli.run.engines.replicas.Replicas.__init__", RESUME),
        ([*RESUMABLE, "--dry-run"], "blip2cli.run.engines.local.show_dry_run", RESUME),
        (["search", "f.parquet", "x"], "blip2cli.commands.search.search", None),
        (["dedup", "f.parquet"], "blip2cli.commands.dedup.dedup", None),
        (["report", "r.jsonl"], "blip2cli.commands.report.report", "No page was written."),
        (["score", "r.jsonl", "-r", "r.json"], "blip2cli.commands.score.score", "No figures were written."),
        (["chat", str(CIRCLE)], "blip2cli.commands.chat.converse", None),
        (["doctor"], "blip2cli.commands.doctor.examine_machine", None),
    ],
)
def test_sigterm_is_told_as_ctrl_c_is_at_any_time(
    terminable: None,
    typed: Callable[..., Typed],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    place: str,
    hint: str | None,
) -> None:
    monkeypatch.setattr(place, terminate)
    ran = typed(*words)
    assert ran.code == 130 and "Traceback" not in ran.err
    assert ran.err.splitlines()[-1 if hint is None else -2 :] == [
        "blip2: interrupted",
        *([f"       {hint}"] if hint else []),
    ]


def test_a_chat_ends_at_sigterm_where_ctrl_c_only_stops_an_answer(
    terminable: None, typed: Callable[..., Typed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blip2cli.host.terminal.chat_screen", ChatTerminal)
    monkeypatch.setattr("blip2cli.commands.chat.Conversation.ask", terminate)
    ran = typed("chat", CIRCLE, stdin="a?\nb?\n")
    assert ran.code == 130 and ran.err.splitlines()[-1] == "blip2: interrupted"
    assert "b?" not in ran.out


BEFORE_AND_AFTER = """
import atexit, os, signal, sys
from blip2cli.__main__ import main

class Finder:
    def find_spec(self, name, *others):
        if name == module and when == "before":
            signal.raise_signal(signal.SIGTERM)
        elif name == module:
            atexit.register(signal.raise_signal, signal.SIGTERM)

when, module = sys.argv.pop(1), sys.argv.pop(1)
sys.meta_path.insert(0, Finder())
main()
"""


@pytest.mark.parametrize(
    ("when", "module", "words", "told"),
    [
        ("before", "blip2cli.cli.usage", ["--version"], "blip2: interrupted\n"),
        ("before", "blip2cli.tasks.caption", ["caption", "--help"], "blip2: interrupted\n"),
        ("after", "blip2cli.cli.usage", ["--version"], ""),
    ],
)
def test_sigterm_while_the_program_is_imported_or_ends_has_exit_code_130(
    when: str, module: str, words: list[str], told: str
) -> None:
    script = [sys.executable, "-c", BEFORE_AND_AFTER, when, module]
    ran = subprocess.run([*script, *words], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (130, told)


IN_A_LONG_COMPUTATION = """
import os, signal, threading, time
from blip2cli.host.signals import stopping
with stopping():
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(3):
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    time.sleep(600)
"""


def test_a_second_signal_does_not_wait_for_the_main_thread() -> None:
    ran = subprocess.run([sys.executable, "-c", IN_A_LONG_COMPUTATION], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 130
    assert ran.stderr.splitlines() == [FINISHING, "blip2: interrupted", "       Committed rows are kept."]
