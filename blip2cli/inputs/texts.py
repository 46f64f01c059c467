"""Texts given on the command line, a row each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blip2cli.records import Row

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Texts:
    """The texts, named text#0, text#1 and so on."""

    texts: tuple[str, ...]
    manifest_text = True

    def rows(self, start: int = 0) -> Iterator[Row]:
        for number, text in enumerate(self.texts[start:], start):
            yield Row(0, f"text#{number}", text=text)

    def count(self) -> int | None:
        return len(self.texts)

    def column_names(self) -> list[str]:
        return []

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([])
