"""What outputs share that are one growing text file, a row after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from blip2cli.errors import OutputError
from blip2cli.outputs import Layout, written
from blip2cli.outputs.appended import AppendedFile, unwritable
from blip2cli.outputs.journal import Journal
from blip2cli.records import Result


class LinesOutput:
    """A text file; a commit records its size. `tail` closes it, and is taken back where it is gone on with."""

    def __init__(self, out: Path, layout: Layout, journal: Journal) -> None:
        self.out = out
        self.layout = layout
        self.journal = journal
        self.done = self.committed = journal.commit
        state = journal.commit.state
        self.file = AppendedFile(out, state.get("size", 0))
        self.body: int = state.get("body", self.file.size)
        self.rows: int = state.get("rows", 0)

    def text(self, results: Sequence[Result]) -> bytes:
        """What is written for results; `rows` counts the output rows before them."""
        raise NotImplementedError

    def tail(self) -> bytes:
        """What closes the file."""
        return b""

    def records(self) -> Iterator[dict[str, Any]]:
        raise NotImplementedError

    def write(self, results: Sequence[Result]) -> None:
        if self.file.size > self.body and not self.file.held:
            self.file.cut(self.body)
        if rows := written(results):
            self.file.write(self.text(rows))
        self.body = self.file.size
        self.rows += len(rows)
        self.done = self.done.after(results)

    def commit(self) -> None:
        if self.done.rows > self.journal.commit.rows:
            self._commit(finished=False)

    def finish(self) -> None:
        if not self.done.finished:
            self.file.sync()
            self.body = self.file.size
            if tail := self.tail():
                self.file.write(tail)
            self._commit(finished=True)

    def _commit(self, finished: bool) -> None:
        self.file.sync()
        if not finished:
            self.body = self.file.size
        state = {"size": self.file.size, "body": self.body, "rows": self.rows, **self.more()}
        try:
            self.journal.add(replace(self.done, finished=finished, state=state))
        except OSError as error:
            raise self.full(error) from None

    def more(self) -> dict[str, Any]:
        """What a format has to remember besides; called with the file on disk."""
        return {}

    def full(self, error: OSError) -> OutputError:
        return unwritable(self.out, error)
