"""Outputs that are one growing text file, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from blip2cli.errors import OutputError
from blip2cli.outputs.appended import AppendedFile, check_appended, stamp_in, unwritable
from blip2cli.outputs.commits import Commit
from blip2cli.outputs.formats import Output
from blip2cli.outputs.journal import CommitLog
from blip2cli.outputs.layout import Layout, written
from blip2cli.outputs.stamp import Checksum, Stamp
from blip2cli.records import Result


class LinesOutput(Output):
    """A text file; a commit records its size and checksum.

    `tail` closes it, and is removed again when a finished file is resumed. Raises UsageError, with nothing changed,
    where the file is not what was committed.
    """

    def __init__(self, out: Path, layout: Layout, journal: CommitLog) -> None:
        self.out = out
        self.layout = layout
        self.journal = journal
        self.done = self.committed = journal.commit
        state = journal.commit.state
        self.check_committed()
        self.file = AppendedFile(out, stamp_in(state))
        self.body: int = state.get("body", self.file.size)
        self.rows: int = state.get("rows", 0)

    def check_committed(self) -> None:
        """Check that what is there is what was committed. Raises UsageError."""
        commit = self.journal.commit
        check_appended(self.out, stamp_in(commit.state), commit.finished, self.continues)

    def text(self, results: Sequence[Result]) -> bytes:
        """What is written for results; `rows` counts the output rows before them."""
        raise NotImplementedError

    def continues(self, data: bytes) -> bool:
        """Whether data may be the beginning of what is written next, broken off anywhere."""
        raise NotImplementedError

    def tail(self) -> bytes:
        """What closes the file."""
        return b""

    def write(self, results: Sequence[Result]) -> None:
        if self.journal.commit.finished:
            self._reopen()
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

    def _reopen(self) -> None:
        """Commit that more rows follow, before anything is changed; then remove what closes the file."""
        before = self.journal.commit
        stamp = Stamp(self.body, Checksum.of(self.out, self.body).text())
        self._add(replace(before, finished=False, state={**before.state, **stamp.state}))
        if self.file.size > self.body:
            self.file.cut(self.body)

    def _commit(self, finished: bool) -> None:
        self.file.sync()
        if not finished:
            self.body = self.file.size
        state = {**self.file.stamp.state, "body": self.body, "rows": self.rows, **self.more_state()}
        self._add(replace(self.done, finished=finished, state=state))

    def _add(self, commit: Commit) -> None:
        try:
            self.journal.add(commit)
        except OSError as error:
            raise self.unwritable(error) from None

    def more_state(self) -> dict[str, Any]:
        """What else a format has to commit; called when the file is on disk."""
        return {}

    def unwritable(self, error: OSError) -> OutputError:
        return unwritable(self.out, error)
