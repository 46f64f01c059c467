"""Draws the pictures in docs/tour.md, docs/report.md and docs/explain.md: `make docs-pictures`, which needs Chromium.

A page's console blocks are run one after the other, in a copy of docs/ and on a terminal of their own. An SVG that
stands below a block shows its commands and what they wrote, a PNG the HTML page that they made; `VIEWS` says how it is
looked at. Only times differ between two drawings.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

from tests.conftest import BROWSERS, FLAGS
from tests.docs.pages import REPOSITORY, examples
from tests.docs.warm import warm_blip2

DOCS = REPOSITORY / "docs"
BLOCK = re.compile(r"^```console\n(.*?)^```$(?:\n\n!\[[^\]]*\]\(([\w/-]+\.\w+)\))?", re.DOTALL | re.MULTILINE)
COLUMNS, LINES = 92, 50


@dataclass(frozen=True)
class View:
    """How an HTML page is looked at: the window, in pixels; light or dark; and what is clicked first."""

    width: int = 1280
    height: int = 800
    scheme: Literal["light", "dark"] = "light"
    clicks: tuple[str, ...] = ()


VIEWS = {
    "report-image.png": View(scheme="dark", clicks=(".card:nth-child(5)",)),
    "explain.png": View(height=860, clicks=(".card:nth-child(6)", "#map-choice .word:nth-child(4)")),
    "report-phone.png": View(390, 760, clicks=("#panel-button", ".facet:nth-child(1) li:nth-child(3) button")),
}
"""Those of the pictures that are not looked at like a page usually is."""

FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""What Rich would have a reader fetch."""


def draw(page: Path) -> None:
    """Run the page's commands, and write its pictures."""
    with tempfile.TemporaryDirectory() as name, warm_blip2() as commands:
        folder = Path(name)
        shutil.copytree(DOCS, folder / "docs")
        for block, picture in BLOCK.findall(page.read_text(encoding="utf-8")):
            shown = Text("\n").join(_session(example.command, folder, commands) for example in examples(block))
            if picture.endswith(".svg"):
                _save(shown, DOCS / picture)
            elif picture:
                _photograph(folder / "gallery.html", DOCS / picture)
        for picture in VIEWS:
            if f"({picture})" in page.read_text(encoding="utf-8"):
                _photograph(folder / "gallery.html", DOCS / picture)


def _session(command: str, folder: Path, commands: Path) -> Text:
    """The command as it was typed, and what the terminal showed."""
    lines = _output(command, folder, commands).replace("\r\n", "\n").rstrip().split("\n")
    written = [Text.from_ansi(line.rpartition("\r")[2]) for line in lines if line]  # what a progress bar left
    return Text("\n").join([Text.assemble(("$ ", "green"), (command, "bold")), *written])


def _output(command: str, folder: Path, commands: Path) -> str:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "TERM": "xterm-256color"}
    for variable in ("BLIP2_MODEL", "COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(variable, None)
    process = subprocess.Popen(
        ["bash", "-c", command], cwd=folder, env=environment, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    chunks = []
    while chunk := _read(master):
        chunks.append(chunk)
    os.close(master)
    process.wait()
    return b"".join(chunks).decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # what Linux says once nobody holds the other end
        return b""


def _save(shown: Text, picture: Path) -> None:
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(shown, overflow="fold", no_wrap=False)
        console.print()  # for the picture ends a little above its last line
    picture.parent.mkdir(exist_ok=True)
    svg = FONTS.sub("", console.export_svg(title="", unique_id=picture.stem))
    picture.write_text(svg, encoding="utf-8")
    _told(picture)


def _photograph(page: Path, picture: Path) -> None:
    view = VIEWS.get(picture.name, View())
    command = next(filter(None, map(shutil.which, BROWSERS)))
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=command, args=FLAGS) as browser:
        tab = browser.new_page(viewport={"width": view.width, "height": view.height}, color_scheme=view.scheme)
        tab.goto(page.as_uri())
        for selector in view.clicks:
            tab.locator(selector).click()
        tab.mouse.move(0, 0)
        tab.wait_for_timeout(500)  # for pictures to appear
        tab.screenshot(path=picture)
    _told(picture)


def _told(picture: Path) -> None:
    print(f"{picture.relative_to(REPOSITORY)}: {picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    for name in sys.argv[1:] or ("tour.md", "report.md", "explain.md"):
        draw(DOCS / name)
