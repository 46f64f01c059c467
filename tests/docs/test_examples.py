"""What the pages show runs as written, in a copy of the docs folder and with the bundled model.

`console` blocks are run, `pycon` blocks are doctests, and the `blip2` commands that need a real checkpoint (`sh`
blocks, indented lines) must at least be commands and options that there are. What is compared is stdout, as a
terminal of 100 columns shows it; where the first line shown is a message of `blip2:`, it is stderr, and the command
must fail. A line `...` stands for any number of lines, and within a line for any text.
"""

import doctest
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from blip2cli.cli import app
from tests.docs.pages import PAGES, REPOSITORY, Example, blocks, examples, name, typed

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SHOWN = [page for page in PAGES if examples(page)]
TAUGHT = [page for page in PAGES if blocks(page, "pycon")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a copy of docs, and nothing in the environment that would change what is shown."""
    shutil.copytree(REPOSITORY / "docs", tmp_path / "docs")
    monkeypatch.delenv("BLIP2_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", SHOWN, ids=name)
def test_console_examples_run_and_show_what_the_page_shows(page: Path, folder: Path) -> None:
    for example in examples(page):
        stdout, stderr, status = typed_in(example.command, folder)
        fails = bool(example.shown) and example.shown[0].startswith("blip2: ")
        assert (status != 0) == fails, f"$ {example.command}\nexit code {status}\n{stdout}{stderr}"
        assert_shows(stderr if fails else stdout, example)


@pytest.mark.parametrize("page", TAUGHT, ids=name)
def test_python_examples_run_and_show_what_the_page_shows(page: Path, folder: Path) -> None:
    text = "\n".join(blocks(page, "pycon"))
    test = doctest.DocTestParser().get_doctest(text, {}, name(page), str(page), 0)
    told: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(test, out=told.append)
    assert not told, "".join(told)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_that_are_only_shown_have_options_that_there_are(page: Path) -> None:
    for line in typed(page):
        words = shlex.split(line, comments=True)
        if "blip2" in words and "[OPTIONS]" not in words:
            words = words[words.index("blip2") + 1 :]
            command = get_command(app).commands[words[0]]  # type: ignore[attr-defined]  # of a group
            command.make_context(words[0], words[1:])


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_is_of_a_kind_that_is_checked_or_no_code(page: Path) -> None:
    kinds = set(re.findall(r"^```(\w*)\n.*?^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))
    assert kinds <= {"console", "pycon", "sh", "text", "json"}


def typed_in(command: str, folder: Path) -> tuple[str, str, int]:
    """Run a command line with stdout on a terminal; gives what the terminal shows, stderr and the exit status."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "100"}
    master, slave = pty.openpty()
    with subprocess.Popen(
        ["bash", "-c", command], stdout=slave, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment
    ) as process:
        os.close(slave)
        chunks = list(iter(lambda: _read(master), b""))
        assert process.stderr is not None
        stderr = process.stderr.read()
    os.close(master)
    return ESCAPES.sub("", b"".join(chunks).decode()).replace("\r\n", "\n"), stderr, process.returncode


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # what Linux says once nobody holds the other end
        return b""


def assert_shows(output: str, example: Example) -> None:
    """Fails where lines are shown and the output is not of that form."""
    if not example.shown:
        return
    lines = "\n".join(line.rstrip() for line in output.splitlines())
    pattern = "\n".join(re.escape(line.rstrip()) for line in example.shown)
    pattern = re.sub(r"^\\\.\\\.\\\.(\n|$)", r"(?:.*(?:\\n|$))*?", pattern, flags=re.MULTILINE)
    pattern = pattern.replace(r"\.\.\.", ".*")
    assert re.fullmatch(pattern, lines), f"$ {example.command}\n{lines}\n--- is shown as\n" + "\n".join(example.shown)
