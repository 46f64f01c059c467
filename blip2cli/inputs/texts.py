"""Texts given on the command line, a row each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from blip2cli.inputs.source import Source
from blip2cli.records import Row


@dataclass(frozen=True)
class Texts(Source):
    """The texts, named text#0, text#1 and so on."""

    texts: tuple[str, ...]

    @property
    def holds_texts(self) -> bool:
        return True

    def rows(self, start: int = 0) -> Iterator[Row]:
        for number, text in enumerate(self.texts[start:], start):
            yield Row(0, f"text#{number}", text=text)

    def count(self) -> int | None:
        return len(self.texts)
