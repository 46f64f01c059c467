"""What of an output is committed, written beside it as `OUT.journal`; resume starts from its last whole line.

The first line holds the run's settings, which a resumed run must share. Every later line is a commit: how many input
rows are done, how many output rows carry errors, what the output needs to know to go on, and the name of the last input
row, to notice a changed input.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from blip2cli.errors import OutputError, UsageError
from blip2cli.host.storage import retried
from blip2cli.records import Result

LONGEST_LINE = 1 << 24


@dataclass(frozen=True)
class Commit:
    """The state behind the last committed row. `state` belongs to the output's format."""

    rows: int = 0
    last: str | None = None
    errors: int = 0
    finished: bool = False
    state: dict[str, Any] = field(default_factory=dict)

    def after(self, results: Sequence[Result]) -> Commit:
        """The state behind these results too, the last of which is its input row's last."""
        row = results[-1].row
        errors = self.errors + sum(result.error is not None for result in results)
        return replace(self, rows=row.index + 1, last=row.name, errors=errors, finished=False)


class Journal:
    """The journal of one output file."""

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self.path = path_of(out)
        self.settings = json.loads(json.dumps(settings))
        self.commit = Commit()

    def start(self) -> None:
        """Begin a fresh journal, replacing any there is."""
        self._replace([{"settings": self.settings}])

    def resume(self, out: Path) -> None:
        """Take up the journal where it ends. Raises UsageError where it is missing or tells of other settings."""
        lines = self.check(out)
        self.commit = committed(out)
        self._replace([lines[0], *lines[1:][-1:]])

    def check(self, out: Path) -> list[dict[str, Any]]:
        """The journal's lines; nothing is changed. Raises UsageError as `resume` does."""
        lines = _whole_lines(self.path)
        if not lines or "settings" not in lines[0]:
            raise UsageError(f"{out} cannot be resumed: {self.path.name} is missing or broken", "Use --overwrite.")
        differences = _differences(lines[0]["settings"], self.settings)
        if differences:
            raise UsageError(
                f"{out} was begun with other settings: {'; '.join(differences)}", "Use the same, or another --out."
            )
        return lines

    def add(self, commit: Commit) -> None:
        """Record a commit; on disk when this returns."""
        self.commit = commit
        with open(self.path, "ab") as file:
            file.write(_line(asdict(commit)))
            file.flush()
            os.fsync(file.fileno())

    def _replace(self, lines: list[dict[str, Any]]) -> None:
        write_atomically(self.path, b"".join(map(_line, lines)))


class RemoteJournal(Journal):
    """A journal behind a URL, where nothing can be appended: commits are kept in hand until `seal`."""

    def seal(self) -> None:
        """Put the last commit on record."""
        self._replace([{"settings": self.settings}, asdict(self.commit)])

    def add(self, commit: Commit) -> None:
        self.commit = commit

    def _replace(self, lines: list[dict[str, Any]]) -> None:
        data = b"".join(map(_line, lines))
        try:
            retried(lambda: self.path.write_bytes(data))
        except OSError as error:
            raise OutputError(
                f"cannot write {self.path}: {error.strerror or error}", "Run again with --resume."
            ) from None


def path_of(out: Path) -> Path:
    """Where the journal of an output stands."""
    return out.with_name(out.name + ".journal")


def begun(out: Path) -> bool:
    """Whether there is something to lose: an output that is not empty, or a commit."""
    filled = any(out.iterdir()) if out.is_dir() else out.exists() and out.stat().st_size > 0
    return filled or len(_whole_lines(path_of(out))) > 1


def check_ordinary(path: Path) -> None:
    """See that a name stands for a file or a folder: /dev/null would be replaced by one. Raises UsageError."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UsageError(f"{path} is a device or a pipe", "Name a file.")


def committed(out: Path) -> Commit:
    """What the journal of an output says last."""
    lines = _whole_lines(path_of(out))
    return Commit(**lines[-1]) if len(lines) > 1 else Commit()


def settings_in(journal: Path) -> dict[str, Any]:
    """The settings of the run that a journal is of; none where there is no such journal."""
    try:
        with open(journal, "rb") as file:
            first = json.loads(file.readline(LONGEST_LINE))
    except (OSError, ValueError, RecursionError):
        return {}
    settings = first.get("settings") if isinstance(first, dict) else None
    return settings if isinstance(settings, dict) else {}


@contextmanager
def locked(out: Path | None) -> Iterator[None]:
    """Keep other runs off an output while inside. The lock dies with its process. Raises UsageError."""
    from filelock import FileLock, Timeout

    if out is None or not isinstance(out, Path) or not out.parent.is_dir():  # which `check_output` tells
        yield
        return
    path = Path(os.path.realpath(out)).with_name(out.name + ".lock")
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(f"{out} is being written by another run", "Wait for it, or choose another --out.") from None
    except OSError as error:
        raise UsageError(
            f"cannot write {out}: {error.strerror}", "Choose another folder, or change its mode."
        ) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return []
    whole: list[dict[str, Any]] = []
    for line in raw.split(b"\n")[:-1]:
        try:
            whole.append(json.loads(line))
        except ValueError:
            break
    return whole


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all. Raises OutputError."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", "Make room, or choose another folder.") from None


def publish(temporary: Path, path: Path) -> None:
    """Rename a finished, synced file to its name, and sync the folder."""
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs, said of each; an option that one of them did not know is at its default, which is empty."""
    names = sorted(name for name in {*before, *now} if (before.get(name) or None) != (now.get(name) or None))
    return [f"{name} was {before.get(name)!r}, is {now.get(name)!r}" for name in names]
