"""What stands in the pages: their fenced blocks, and the commands and output in those marked `console`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted((REPOSITORY / "docs").glob("*.md"))]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """A command as it is typed, and the lines shown below it."""

    command: str
    shown: tuple[str, ...]


def name(page: Path) -> str:
    """The page's name below the repository."""
    return page.relative_to(REPOSITORY).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return [text for marked, text in FENCE.findall(page.read_text(encoding="utf-8")) if marked == language]


def examples(page: Path) -> list[Example]:
    """The commands of the page's console blocks, in order."""
    return [example for block in blocks(page, "console") for example in _examples(block)]


def typed(page: Path) -> list[str]:
    """Commands shown but not run here: those of `sh` blocks, and `blip2` lines indented as code."""
    text = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    indented = re.findall(r"^    (blip2 .*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return [*text.splitlines(), *indented]


def _examples(block: str) -> Iterator[Example]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *shown = re.sub(r" \\\n>? *", " ", part).rstrip("\n").split("\n")
        yield Example(command, tuple(shown))
