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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from blip2cli.cli import app
from tests.docs.pages import PAGES, REPOSITORY, Example, blocks, examples, name, only_shown
from tests.docs.warm import warm_blip2

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
RUN = ("console", "pycon")
SHOWN = [page for page in PAGES if any(kind in RUN for kind, _ in blocks(page))]


@pytest.fixture(scope="module")
def warm() -> Iterator[Path]:
    """A folder with a command `blip2` that needs no time to start."""
    with warm_blip2() as folder:
        yield folder


@pytest.fixture
def folder(tmp_path: Path, warm: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a copy of docs, `blip2` on the path, and no environment that would change what is shown."""
    shutil.copytree(REPOSITORY / "docs", tmp_path / "docs")
    monkeypatch.delenv("BLIP2_MODEL", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("PATH", f"{warm}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", SHOWN, ids=name)
def test_what_a_page_shows_is_what_running_it_shows(page: Path, folder: Path) -> None:
    names: dict[str, Any] = {}
    for kind, text in blocks(page):
        if kind == "console":
            for example in examples(text):
                check_command(example)
        elif kind == "pycon":
            check_python(text, names)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_that_are_only_shown_have_options_that_there_are(page: Path) -> None:
    for line in only_shown(page):
        words = shlex.split(line, comments=True)
        if "blip2" in words and "[OPTIONS]" not in words:
            command, *arguments = words[words.index("blip2") + 1 :]
            get_command(app).commands[command].make_context(command, arguments)  # type: ignore[attr-defined]  # a group


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_is_of_a_kind_that_is_checked_or_is_no_code(page: Path) -> None:
    assert {kind for kind, _ in blocks(page)} <= {*RUN, "sh", "text"}
    assert page.read_text(encoding="utf-8").count("```") == 2 * len(blocks(page))


def check_command(example: Example) -> None:
    """Run a command line and compare."""
    stdout, stderr, status = typed(example.command)
    fails = bool(example.shown) and example.shown[0].startswith("blip2: ")
    assert (status != 0) == fails, f"$ {example.command}\nexit code {status}\n{stdout}{stderr}"
    output = stderr if fails else stdout
    assert not example.shown or shows(output, example.shown), (
        f"$ {example.command}\n{output}--- is shown as\n" + "\n".join(example.shown)
    )


def check_python(text: str, names: dict[str, Any]) -> None:
    """Run a doctest, with the names that earlier ones on the page have defined, and compare."""
    test = doctest.DocTestParser().get_doctest(text, names, "pycon", None, None)
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=told.append, clear_globs=False)
    names.update(test.globs)
    assert not told, "".join(told)


def typed(command: str) -> tuple[str, str, int]:
    """Run a command line with stdout on a terminal; gives what the terminal shows, stderr and the exit status."""
    master, slave = pty.openpty()
    with subprocess.Popen(["bash", "-c", command], stdout=slave, stderr=subprocess.PIPE, text=True) as process:
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


def shows(output: str, shown: tuple[str, ...]) -> bool:
    """Whether the output is of the form shown."""
    lines = "\n".join(line.rstrip() for line in output.splitlines())
    pattern = "\n".join(re.escape(line.rstrip()) for line in shown)
    pattern = re.sub(r"^\\\.\\\.\\\.(\n|$)", r"(?:.*(?:\\n|$))*?", pattern, flags=re.MULTILINE)
    return re.fullmatch(pattern.replace(r"\.\.\.", ".*"), lines) is not None
