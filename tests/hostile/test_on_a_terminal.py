"""Nothing that data brought steers a terminal: names, cells, errors, tracebacks, in every kind of message."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from io import BufferedReader, BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import pytest

from blip2cli.cli import main
from blip2cli.host import terminal
from blip2cli.host.terminal import GuardedStream, escaped, printable

CIRCLE = Path(__file__).parents[2] / "docs" / "examples" / "red-circle.png"
EVIL = "\x1b]0;owned\x07\x1b[2J\r\x9b2J\u202egnp\u2066\udcff\x7f"
"""Sets a title, rings, clears the screen in two ways, goes back in the line, turns the text around."""

OURS = re.compile(r"\x1b\[[0-9;]*m|\x1b\[A|[\r\n]")
"""Colours, and what the progress does with the cursor."""


class Screen(TextIOWrapper):
    """A terminal that keeps all that is written to it."""

    def __init__(self) -> None:
        self.bytes = BytesIO()
        super().__init__(self.bytes, "utf-8", errors="backslashreplace", write_through=True)

    def isatty(self) -> bool:
        return True


@pytest.fixture
def on_screens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Run `blip2` with stdout and stderr on terminals; gives what was shown on both."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BLIP2_MODEL", "tiny")

    def run(*words: object, stdin: str = "") -> str:
        shown = ""
        with monkeypatch.context() as patch:
            out, err = Screen(), Screen()
            patch.setattr(sys, "argv", ["blip2", *map(str, words)])
            patch.setattr(
                sys, "stdin", TextIOWrapper(BufferedReader(BytesIO(stdin.encode("utf-8", "surrogateescape"))))
            )
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            try:
                main()
            except SystemExit:
                pass
            except Exception:  # with --debug, as Python itself does then
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            shown = (out.bytes.getvalue() + err.bytes.getvalue()).decode()
        return shown

    yield run


def check(shown: str) -> None:
    assert "2J\r" not in shown
    left = OURS.sub("", shown)
    assert left.isprintable(), [char for char in left if not char.isprintable()]
    assert "gnp" in left or "owned" in left, "the evil name is shown at all"


EVIL_FILE = EVIL.replace("/", "") + ".png"


@pytest.fixture
def evil_folder(tmp_path: Path) -> Path:
    folder = tmp_path / f"folder {EVIL}"
    folder.mkdir()
    shutil.copy(CIRCLE, folder / EVIL_FILE)
    (folder / f"bad {EVIL_FILE}").write_bytes(b"no image")
    return folder


def test_tables_summaries_and_dry_runs(on_screens: Callable[..., str], evil_folder: Path) -> None:
    check(on_screens("caption", evil_folder))
    check(on_screens("caption", evil_folder, "--dry-run"))
    check(on_screens("caption", evil_folder, "--out", f"out {EVIL}.jsonl"))
    check(on_screens("caption", evil_folder, "--out", f"out {EVIL}.jsonl"))  # exists already
    check(on_screens("report", f"out {EVIL}.jsonl", "--out", f"page {EVIL}.html"))


def test_columns_cells_prompts_and_answers(on_screens: Callable[..., str], tmp_path: Path) -> None:
    rows = [{"image": f"gone {EVIL}.png", f"column {EVIL}": EVIL}, {"image": str(CIRCLE), f"column {EVIL}": EVIL}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    Path("m.jsonl").write_text(lines, encoding="utf-8", errors="surrogatepass")
    check(on_screens("vqa", "m.jsonl", "-p", f"what {EVIL}?"))
    check(on_screens("caption", "m.jsonl", "--prompt", f"{{no column {EVIL}}}"))


@pytest.mark.parametrize(
    "words",
    [
        ("caption", f"gone {EVIL}.png"),
        ("caption", CIRCLE, f"--gone{EVIL}"),
        ("caption", CIRCLE, "--device", EVIL),
        ("caption", CIRCLE, "--model", f"./{EVIL}"),
        ("caption", CIRCLE, "--model", f"./{EVIL}", "--debug"),
        ("caption", f"gone {EVIL}.png", "--debug"),
        ("search", f"gone {EVIL}.parquet", "x"),
        ("score", f"gone {EVIL}.jsonl", "--references", f"gone {EVIL}.json"),
        ("models", f"./{EVIL}"),
        (f"gone {EVIL}",),
    ],
    ids=lambda words: " ".join(map(str, words)).encode("ascii", "replace").decode().split("?")[0].replace("\x1b", ""),
)
def test_errors_and_tracebacks(on_screens: Callable[..., str], words: tuple[object, ...]) -> None:
    check(on_screens(*words))


def test_a_conversation(on_screens: Callable[..., str], evil_folder: Path) -> None:
    check(on_screens("chat", evil_folder / EVIL_FILE, stdin=f"what {EVIL}?\n/image gone {EVIL}.png\n/{EVIL}\n"))


def test_json_lines_on_a_terminal_are_escaped_and_mean_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    terminal.print_records([{"image": EVIL + "\U000e0001"}])
    shown = screen.bytes.getvalue().decode()
    assert shown[:-1].isprintable() and json.loads(shown) == {"image": EVIL + "\U000e0001"}


def test_what_libraries_write_to_stderr_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = StringIO()
    monkeypatch.setattr(sys, "stderr", GuardedStream(stream))
    print(warnings.formatwarning(EVIL, UserWarning, f"{EVIL}.py", 1, line=EVIL), file=sys.stderr)
    handler = logging.StreamHandler(sys.stderr)
    handler.emit(logging.LogRecord("x", logging.ERROR, EVIL, 1, EVIL, (), None))
    sys.stderr.writelines([EVIL, "\n"])
    try:
        raise ValueError(EVIL)
    except ValueError:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    assert stream.getvalue().replace("\n", "").isprintable()
    assert stream.getvalue().count("owned") >= 4 and "\\u001b]0;owned\\u0007" in stream.getvalue()


@pytest.mark.parametrize("text", [EVIL, "plain", "\u05e9\u05dc\u05d5\u05dd \N{PARROT}", "a\nb", "", "\t"])
def test_what_is_printable_stays(text: str) -> None:
    assert printable(text).isprintable() and len(printable(text)) == len(text)
    assert escaped(text).replace("\n", "").isprintable()
    if text.replace("\n", "").isprintable():
        assert escaped(text) == text


@pytest.mark.parametrize(("closed", "code"), [(">&-", 1), ("<&- 2>&-", 0)])
def test_a_standard_stream_that_is_closed_is_no_file_of_ours(tmp_path: Path, closed: str, code: int) -> None:
    line = f"{sys.executable} -m blip2cli caption {CIRCLE} {CIRCLE} --model tiny --workers 1 {closed}"
    ran = subprocess.run(["sh", "-c", line], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert ran.returncode == code, ran.stderr
    assert ran.stdout.count("a red circle") == len(ran.stdout.splitlines()) == (0 if code else 2)
    assert "Traceback" not in ran.stderr


def test_native_libraries_are_silent_while_images_are_decoded(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with terminal.silent_libraries():
        os.write(2, EVIL.encode("utf-8", "backslashreplace"))
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_threads_that_overlap_leave_stderr_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    first, second = terminal.silent_libraries(), terminal.silent_libraries()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    os.write(2, b"still silent")
    second.__exit__(None, None, None)
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_what_we_say_while_native_libraries_are_silent_is_seen(tmp_path: Path) -> None:
    """As the first Ctrl-C is told while this process decodes an image."""
    told = (
        "from blip2cli.host.terminal import guard_streams, show_warning, silent_libraries\n"
        "import os\n"
        "guard_streams()\n"
        "with silent_libraries():\n"
        "    os.write(2, b'native')\n"
        "    show_warning('finishing')\n"
        "os.write(2, b'heard')\n"
    )
    ran = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "blip2: warning: finishing\nheard")
