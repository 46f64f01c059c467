"""A folder of shards: files of one format, each published whole under its name when it is full."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from blip2cli.errors import OutputError, UsageError
from blip2cli.host.files import cannot_write, publish
from blip2cli.outputs.appended import GO_ON
from blip2cli.outputs.commits import Commit
from blip2cli.outputs.formats import Format, Output
from blip2cli.outputs.journal import Journal, parts_folder
from blip2cli.outputs.layout import Layout, written
from blip2cli.outputs.stamp import Stamp, edited
from blip2cli.records import Result


class ShardJournal:
    """The journal as the output of one shard sees it: its own state is kept within the folder's."""

    def __init__(self, journal: Journal, shard: int, filled: int, commit: Commit) -> None:
        self.journal = journal
        self.shard = shard
        self.filled = filled
        self.commit = commit

    def add(self, commit: Commit) -> None:
        state = {"shard": self.shard, "filled": self.filled, "whole": commit.finished, "inner": commit.state}
        self.journal.add(replace(commit, finished=False, state=state))
        self.commit = commit


class ShardedOutput(Output):
    """Shards of `size` output rows, the last may be smaller; the rows of an image stand in one shard.

    The current shard is written beside the folder, by the output of its format, and renamed into it when it is full.
    """

    def __init__(self, out: Path, layout: Layout, journal: Journal, form: Format, size: int) -> None:
        """`form` is the format of each shard."""
        self.out, self.layout, self.journal = out, layout, journal
        self.make, self.files, self.size = form.make, form.shard_files, size
        self.committed = journal.commit
        self.workspace = self._workspace()
        self.inner: Output | None = None
        self.current: ShardJournal | None = None
        self.shard = journal.commit.state.get("shard", -1)
        self._check_committed(journal.commit)
        try:
            self._make_folders()
            self._resume(journal.commit)
        except OSError as error:
            raise self._unwritable(error) from None

    def write(self, results: Sequence[Result]) -> None:
        taken: list[Result] = []
        rows = 0
        for result in results:
            taken.append(result)
            rows += not result.left_out
            if result.last and rows >= (self._room or self.size):
                self._write(taken)
                self._close()
                taken, rows = [], 0
        if taken:
            self._write(taken)

    def commit(self) -> None:
        if self.inner is not None:
            self.inner.commit()

    def finish(self) -> None:
        if self.inner is not None or self.shard < 0:
            self._opened()
            self._close()
        if not self.journal.commit.finished:
            self.journal.add(replace(self.journal.commit, finished=True))
        shutil.rmtree(self.workspace, ignore_errors=True)

    def records(self) -> Iterator[dict[str, Any]]:
        for shard in self._each():
            yield from shard.records()

    def values(self, *names: str) -> Iterator[tuple[Any, ...]]:
        for shard in self._each():
            yield from shard.values(*names)

    def _each(self) -> Iterator[Output]:
        """The shards with committed rows."""
        for shard in range(self.shard + 1):
            path = self._published(shard)[0]
            if path.exists():
                finished = Commit(finished=True, state={"size": path.stat().st_size})
                yield self.make(path, self.layout, ShardJournal(self.journal, shard, 0, finished))
        if self.inner is not None:
            yield self.inner

    @property
    def _room(self) -> int:
        """Rows that still go into the current shard."""
        return max(self.size - self.current.filled, 0) if self.current is not None else 0

    def _resume(self, commit: Commit) -> None:
        """Take up the current shard, or publish it if that was all that was missing."""
        if self.shard < 0:
            return
        if commit.state["whole"]:
            self._publish()
            self._check(self.shard)
            self.current = self._journal(commit.state["filled"], replace(commit, finished=True))
        else:
            self._open(self._journal(commit.state["filled"], commit))
            if not self._room:
                self._close()

    def _check_committed(self, commit: Commit) -> None:
        """Check that what is there is what was committed. Raises UsageError."""
        for shard in range(self.shard):
            self._check(shard)
        known = {path for shard in range(self.shard) for path in self._published(shard)}
        if self.shard >= 0 and commit.state["whole"]:
            known.update(self._published(self.shard))
        existing = self.out.rglob("*") if isinstance(self.out, Path) and self.out.is_dir() else ()
        unknown = next((path for path in existing if path not in known and not path.is_dir()), None)
        if unknown is not None:
            raise edited(unknown, "is not what was committed")

    def _check(self, shard: int) -> None:
        if shard not in self.journal.shards:
            raise edited(self._published(shard)[0], "is not in the journal")
        check_shard(self.out, self._published(shard), self.journal.shards[shard])

    def _workspace(self) -> Path:
        """Where the current shard is written."""
        return parts_folder(self.out)

    def _make_folders(self) -> None:
        for name in self.files:
            (self.out / name).parent.mkdir(parents=True, exist_ok=True)
        self.workspace.mkdir(exist_ok=True)

    def _unpublish(self) -> None:
        """Make the last shard the current one again."""
        for unpublished, published in zip(self._unpublished(self.shard), self._published(self.shard), strict=True):
            os.replace(published, unpublished)

    def _publish(self) -> None:
        """Put the files of the current shard, as far as they are not there yet, in their places."""
        self._record()
        for unpublished, published in zip(self._unpublished(self.shard), self._published(self.shard), strict=True):
            if unpublished.exists():
                publish(unpublished, published)

    def _record(self) -> None:
        """Record what the shard holds, unless some of it was published before."""
        unpublished = self._unpublished(self.shard)
        if all(path.exists() for path in unpublished):
            self.journal.add_shard(self.shard, stamps_of(unpublished))

    def _journal(self, filled: int, commit: Commit) -> ShardJournal:
        return ShardJournal(self.journal, self.shard, filled, replace(commit, state=commit.state.get("inner", {})))

    def _open(self, journal: ShardJournal) -> None:
        self.current = journal
        self.inner = self.make(self._unpublished(self.shard)[0], self.layout, journal)

    def _opened(self) -> Output:
        """The output of the current shard: the one there is, the last one if it has room, or the next."""
        if self.inner is None:
            if self.current is not None and self._room:
                self._unpublish()
                self._open(self.current)
            else:
                self.shard += 1
                fresh = replace(self.journal.commit, finished=False, state={})
                self._open(self._journal(0, fresh))
        assert self.inner is not None
        return self.inner

    def _write(self, results: Sequence[Result]) -> None:
        try:
            inner = self._opened()
        except OSError as error:
            raise self._unwritable(error) from None
        assert self.current is not None
        self.current.filled += len(written(results))
        inner.write(results)

    def _close(self) -> None:
        assert self.inner is not None
        self.inner.finish()
        self.inner = None
        try:
            self._publish()
        except OSError as error:
            raise self._unwritable(error) from None

    def _unpublished(self, shard: int) -> list[Path]:
        return [self.workspace / path.name for path in self._published(shard)]

    def _published(self, shard: int) -> list[Path]:
        return [self.out / name.format(shard) for name in self.files]

    def _unwritable(self, error: OSError) -> OutputError:
        return cannot_write(self.out, error, GO_ON)


def stamps_of(paths: Sequence[Path]) -> list[list[Any]]:
    """What the journal keeps of the files of a shard. Raises OSError."""
    stamps = [Stamp.of(path, head=0) for path in paths]
    return [[stamp.size, stamp.checksum] for stamp in stamps]


def check_shard(out: Path, paths: Sequence[Path], stamps: Sequence[Sequence[Any]]) -> None:
    """Check that a published shard is what was committed. Raises UsageError."""
    for path in paths:
        if not path.exists():
            raise UsageError(f"{out} cannot be resumed: {path} is gone", "Use --overwrite.")
    for path, stamp in zip(paths, stamps, strict=False):
        if not Stamp(*stamp).fits(path, head=0):
            raise edited(path, "is not what was committed")
