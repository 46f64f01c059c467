"""What of an output is committed, kept in one hidden file beside it; resume starts from its last whole line.

The first line holds the version of the file, the run's settings and the output's columns, which a resumed run must
share. Later lines are commits (how many input rows are done, how many output rows carry errors, what the format needs
to know to go on, and the name of the last input row, to notice a changed input) and, in a folder of shards, what each
published shard holds. Every line carries a checksum of itself.

The file is written in place, and never replaced while a run holds it: the run's lock is on it.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from blip2cli.errors import UsageError, reason
from blip2cli.host.files import HIDDEN, cannot_write, check_folder, check_regular
from blip2cli.host.retries import retried
from blip2cli.outputs.commits import (
    Commit,
    Damaged,
    Header,
    JournalContent,
    OtherVersion,
    Stamps,
    header_line,
    header_of_line,
    line_of,
    parsed_journal,
)

GO_ON_HINT = "Use --overwrite to start again, or choose another name."


class CommitLog(Protocol):
    """What an output tells of its commits, `commit` being the last: a journal, or a part of one."""

    commit: Commit

    def add(self, commit: Commit) -> None:
        """Record a commit; on disk when this returns. Raises OSError."""


class NoJournal:
    """The commits of an output that is never resumed, kept nowhere."""

    def __init__(self) -> None:
        self.commit = Commit()

    def add(self, commit: Commit) -> None:
        self.commit = commit


class Journal:
    """The journal of one output.

    Args:
        path: the hidden file.
        out: the output, as messages name it.
        header: what the run's rows depend on.
    """

    def __init__(self, path: Path, out: Path, header: Header) -> None:
        self.path, self.out = path, out
        self.header = header_of_line(json.loads(json.dumps(header_line(header))))
        self.commit = Commit()
        self.shards: dict[int, Stamps] = {}
        self.end = 0

    def start(self) -> None:
        """Begin again, in place of what is there. Raises OutputError."""
        self._write([header_line(self.header)])

    def resume(self) -> None:
        """Take up the journal where it ends. Raises UsageError where it is missing, damaged, or of other settings."""
        record = self.check()
        self.commit, self.shards, self.end = record.commit, record.shards, record.end

    def check(self) -> JournalContent:
        """What the journal says; nothing is changed. Raises UsageError as `resume` does."""
        record = read_journal(self.path)
        if record is None:
            raise _without_journal(self.out, self.path)
        if changed := record.header.differences(self.header):
            raise UsageError(
                f"{self.out} was started with other settings: {'; '.join(changed)}",
                "Use the same settings, or another --out.",
            )
        return record

    def add(self, commit: Commit) -> None:
        """Record a commit; on disk when this returns. Raises OSError."""
        self.commit = commit
        self._append(asdict(commit))

    def add_shard(self, number: int, stamps: Stamps) -> None:
        """Record what a shard holds that is about to be published. Raises OSError."""
        self.shards[number] = stamps
        self._append({"shard": number, "files": stamps})

    def seal(self) -> None:
        """Write all that was added, where `add` itself does not."""

    def _append(self, record: dict[str, Any]) -> None:
        line = line_of(record)
        with open(self.path, "r+b") as file:  # which does not make it again, if it is gone
            file.truncate(self.end)  # what follows is a line that was torn
            file.seek(self.end)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self.end += len(line)

    def _write(self, lines: list[dict[str, Any]]) -> None:
        """Make lines all that the file holds."""
        data = b"".join(map(line_of, lines))
        try:
            _rewrite(self.path, data)
        except OSError as error:
            raise cannot_write(self.out, error, "Free some space, then run again.") from None
        self.end = len(data)


class RemoteJournal(Journal):
    """A journal behind a URL, where nothing can be appended: what is added stays in memory until `seal`."""

    def seal(self) -> None:
        shards = [{"shard": number, "files": stamps} for number, stamps in self.shards.items()]
        self._write([header_line(self.header), *shards, asdict(self.commit)])

    def _append(self, record: dict[str, Any]) -> None:
        """Wait for `seal`."""

    def _write(self, lines: list[dict[str, Any]]) -> None:
        data = b"".join(map(line_of, lines))
        try:
            retried(lambda: self.path.write_bytes(data))
        except OSError as error:
            raise cannot_write(self.path, error, "Run again with --resume.") from None


def hidden_beside(out: Path, name: str = "") -> Path:
    """The hidden file that belongs to a file or folder, or to one called `name` in it. Raises UsageError."""
    folder = out if out.name not in ("", "..") else Path(os.path.realpath(out))
    if not folder.name:
        raise UsageError(f"{out} cannot be an output", "Give a folder inside it.")
    return folder.with_name(f".{folder.name}{name and '.' + name}{HIDDEN}")


def parts_folder(out: Path) -> Path:
    """The hidden folder in which a format keeps committed parts until they are joined.

    Raises UsageError where something else has its name.
    """
    folder = out.with_name(f".{out.name}{HIDDEN}-parts")
    check_folder(folder)
    return folder


def read_journal(path: Path) -> JournalContent | None:
    """What a journal says; None where there is none, or nothing in it. Raises UsageError where it cannot be read."""
    check_regular(path)
    try:
        with open(path, "rb") if isinstance(path, Path) else io.BytesIO(path.read_bytes()) as file:
            return parsed_journal(file)
    except FileNotFoundError:
        return None
    except OtherVersion as error:
        raise UsageError(f"{path} was written by another version of blip2 ({error})", GO_ON_HINT) from None
    except Damaged as error:
        raise UsageError(f"{path} is damaged: {error}", GO_ON_HINT) from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason(error)}", GO_ON_HINT) from None


def _without_journal(out: Path, path: Path) -> UsageError:
    """The error for an output without a journal."""
    if out.with_name(out.name + ".journal").exists():
        return UsageError(
            f"{out} was started by an earlier version of blip2, whose journal this version cannot read",
            "Finish it with that version, or use --overwrite.",
        )
    return UsageError(f"{out} cannot be resumed: what belongs to it, {path.name}, is missing", GO_ON_HINT)


def settings_in(path: Path) -> Mapping[str, Any]:
    """The settings of the run that a journal is of; none where there is no such journal."""
    try:
        record = read_journal(path)
    except UsageError:
        return {}
    return record.header.settings if record else {}


def adopt(path: Path, other: Path) -> None:
    """Make a finished journal the content of another, which keeps its place and its lock. Raises OutputError."""
    try:
        _rewrite(path, other.read_bytes())
        other.unlink()
    except OSError as error:
        raise cannot_write(path, error) from None


def _rewrite(path: Path, data: bytes) -> None:
    """Make data the content of a file, in its place. Raises OSError."""
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        file.truncate(0)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
