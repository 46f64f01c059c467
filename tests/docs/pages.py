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


def blocks(page: Path) -> list[tuple[str, str]]:
    """The page's fenced blocks in order: what each is marked as, and its text."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def examples(block: str) -> Iterator[Example]:
    """The commands of a console block, each with its here-document if it has one."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *shown = part.rstrip("\n").split("\n")
        here = re.search(r"<<'?(\w+)'?", command)
        typed = shown.index(here[1]) + 1 if here else 0
        yield Example("\n".join([command, *shown[:typed]]), tuple(shown[typed:]))


def only_shown(page: Path) -> list[str]:
    """Command lines of `sh` blocks, and `blip2` lines indented as code, which are not run."""
    shown = "".join(text for kind, text in blocks(page) if kind == "sh")
    indented = re.findall(r"^    (blip2 .*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return [*shown.splitlines(), *indented]
