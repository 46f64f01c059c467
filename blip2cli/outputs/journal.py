"""What of an output is committed, kept in one hidden file beside it; resume starts from its last whole line.

The first line holds the version of the file, the run's settings and the output's columns, which a resumed run must
share. Later lines are commits (how many input rows are done, how many output rows carry errors, what the format needs
to know to go on, and the name of the last input row, to notice a changed input) and, in a folder of shards, what each
published shard holds. Every line carries a checksum of itself.

The file is written in place, and never replaced while a run holds it: the run's lock is on it.
"""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from blip2cli.errors import UsageError
from blip2cli.host.files import HIDDEN, cannot_write
from blip2cli.host.storage import retried
from blip2cli.records import Result

VERSION = 2
"""That of the file's lines. Files of version 1 were called OUT.journal, and are not read."""

LONGEST_LINE = 1 << 26
"""Bytes of the longest line that is read."""

LARGEST = 1 << 62
"""Above any number of rows or bytes."""

GO_ON_HINT = "Use --overwrite to start again, or another name."

UNKNOWN = ""
"""The type of a column where it is not known, which goes with any."""

Columns = Mapping[str, str]
"""Names of columns, in their order → their types, in words."""

Stamps = Sequence[Sequence[Any]]
"""[size in bytes, checksum] of each file of a shard."""


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


@dataclass(frozen=True)
class Header:
    """What the rows of an output depend on: the settings of the run, and the columns.

    `carried` are the input's columns with their types, `columns` those of the task; None where a run did not know.
    """

    settings: Mapping[str, Any]
    carried: Columns | None = None
    columns: Columns | None = None

    def differences(self, now: Header) -> list[str]:
        """What has changed, said of each; a setting that one of them did not know is at its default, which is empty."""
        before, after = self.settings, now.settings
        names = sorted(name for name in {*before, *after} if (before.get(name) or None) != (after.get(name) or None))
        changed = [f"{name} was {before.get(name)!r}, is {after.get(name)!r}" for name in names]
        for one, other in ((self.carried, now.carried), (self.columns, now.columns)):
            if one is not None and other is not None:
                changed += _changed_columns(one, other)
        return changed


def _changed_columns(before: Columns, now: Columns) -> list[str]:
    gone = [f"column {name} is gone" for name in before if name not in now]
    new = [f"column {name} is new" for name in now if name not in before]
    types = [
        f"column {name} was {before[name]}, is {now[name]}"
        for name in before
        if now.get(name, UNKNOWN) != before[name] and UNKNOWN not in (before[name], now.get(name, UNKNOWN))
    ]
    if not gone and not new and list(before) != list(now):
        types.append(f"the columns were in the order {', '.join(before)}")
    return [*gone, *new, *types]


@dataclass(frozen=True)
class Record:
    """A journal as it was read. `shards` are the stamps of published shards, by number; `end` is behind its lines."""

    header: Header
    shards: dict[int, Stamps]
    commit: Commit
    end: int


class Journal:
    """The journal of one output.

    Args:
        path: the hidden file.
        out: the output, as messages name it.
        header: what the run's rows depend on.
    """

    def __init__(self, path: Path, out: Path, header: Header) -> None:
        self.path, self.out = path, out
        self.header = _header_of(json.loads(json.dumps(_header_line(header))))
        self.commit = Commit()
        self.shards: dict[int, Stamps] = {}
        self.end = 0

    def start(self) -> None:
        """Begin afresh, in place of what there is. Raises OutputError."""
        self._write([_header_line(self.header)])

    def resume(self) -> None:
        """Take up the journal where it ends. Raises UsageError where it is missing, damaged, or of other settings."""
        record = self.check()
        self.commit, self.shards, self.end = record.commit, record.shards, record.end

    def check(self) -> Record:
        """What the journal says; nothing is changed. Raises UsageError as `resume` does."""
        record = read_journal(self.path)
        if record is None:
            raise _without_journal(self.out, self.path)
        if changed := record.header.differences(self.header):
            raise UsageError(
                f"{self.out} was begun with other settings: {'; '.join(changed)}", "Use the same, or another --out."
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
        """Have all that was added on record, where `add` does not see to it."""

    def _append(self, record: dict[str, Any]) -> None:
        line = line_of(record)
        with open(self.path, "r+b") as file:  # which does not make it again, if it is gone
            file.truncate(self.end)  # what lies behind is a line that was torn
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
            raise cannot_write(self.out, error, "Make room, then run again.") from None
        self.end = len(data)


class RemoteJournal(Journal):
    """A journal behind a URL, where nothing can be appended: what is added is kept in hand until `seal`."""

    def seal(self) -> None:
        shards = [{"shard": number, "files": stamps} for number, stamps in self.shards.items()]
        self._write([_header_line(self.header), *shards, asdict(self.commit)])

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
    place = out if out.name not in ("", "..") else Path(os.path.realpath(out))
    if not place.name:
        raise UsageError(f"{out} cannot be an output", "Name a folder in it.")
    return place.with_name(f".{place.name}{name and '.' + name}{HIDDEN}")


def parts_folder(out: Path) -> Path:
    """The hidden folder in which a format keeps committed parts until they are joined."""
    return out.with_name(f".{out.name}{HIDDEN}-parts")


def read_journal(path: Path) -> Record | None:
    """What a journal says; None where there is none, or nothing in it. Raises UsageError where it cannot be read."""
    try:
        with open(path, "rb") if isinstance(path, Path) else io.BytesIO(path.read_bytes()) as file:
            return _parsed(file)
    except FileNotFoundError:
        return None
    except _OtherVersion as error:
        raise UsageError(f"{path} was written by another version of blip2 ({error})", GO_ON_HINT) from None
    except _Damaged as error:
        raise UsageError(f"{path} is damaged: {error}", GO_ON_HINT) from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", GO_ON_HINT) from None


class _Damaged(ValueError):
    """A line is not as it was written."""


class _OtherVersion(ValueError):
    """The file is of another version."""


def _parsed(file: Any) -> Record | None:
    header, commit, shards, end = None, Commit(), dict[int, Stamps](), 0
    while line := file.readline(LONGEST_LINE):
        if not line.endswith(b"\n"):
            if header is None or len(line) == LONGEST_LINE:
                raise _Damaged("its first line is not whole" if header is None else "a line is too long")
            break  # torn, as a run leaves it that is killed
        record = _checked(line)
        if header is None:
            header = _header_of(record)
        elif "shard" in record:
            number, stamps = _shard_of(record)
            shards[number] = stamps
        else:
            commit = _commit_of(record)
        end += len(line)
    return None if header is None else Record(header, shards, commit, end)


def _checked(line: bytes) -> dict[str, Any]:
    """A line's record, if it is as it was written."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise _Damaged("a line is not JSON") from None
    if not isinstance(record, dict):
        raise _Damaged("a line is not an object")
    version = record.get("blip2")
    if "blip2" in record and version != VERSION:
        raise _OtherVersion(f"{version!r:.20}, not {VERSION}")
    check = record.pop("check", None)
    if check != _check(record):
        raise _Damaged("a line was changed")
    return record


def _header_of(record: dict[str, Any]) -> Header:
    if record.keys() != {"blip2", "settings", "carried", "columns"}:
        raise _Damaged("its first line is not one of settings")
    settings, carried, columns = record["settings"], record["carried"], record["columns"]
    if not isinstance(settings, dict):
        raise _Damaged("its settings are not an object")
    return Header(settings, _columns_of(carried), _columns_of(columns))


def _columns_of(value: Any) -> Columns | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(_is_pair(entry) for entry in value):
        raise _Damaged("its columns are not names and types")
    return dict(value)


def _is_pair(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(text, str) for text in entry)


def _commit_of(record: dict[str, Any]) -> Commit:
    if record.keys() != {one.name for one in fields(Commit)}:
        raise _Damaged("a line is not a commit")
    commit = Commit(**record)
    good = (
        _is_count(commit.rows)
        and _is_count(commit.errors)
        and isinstance(commit.last, str | None)
        and isinstance(commit.finished, bool)
        and isinstance(commit.state, dict)
        and _has_counts(commit.state)
    )
    if not good or (commit.rows and not commit.state):
        raise _Damaged("a commit holds what it cannot")
    return commit


def _shard_of(record: dict[str, Any]) -> tuple[int, Stamps]:
    number, stamps = record.get("shard"), record.get("files")
    good = isinstance(stamps, list) and all(isinstance(stamp, list) and len(stamp) == 2 for stamp in stamps)
    if not (_is_count(number) and good and _has_counts(stamps)):
        raise _Damaged("a shard is not as it is written")
    assert isinstance(number, int) and isinstance(stamps, list)
    return number, stamps


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST


def _has_counts(value: Any) -> bool:
    """Whether all numbers in a value may count something."""
    if isinstance(value, dict):
        return all(_has_counts(entry) for entry in value.values())
    if isinstance(value, list):
        return all(_has_counts(entry) for entry in value)
    return value is None or isinstance(value, str | bool) or _is_count(value)


def _header_line(header: Header) -> dict[str, Any]:
    carried = None if header.carried is None else list(map(list, header.carried.items()))
    columns = None if header.columns is None else list(map(list, header.columns.items()))
    return {"blip2": VERSION, "settings": header.settings, "carried": carried, "columns": columns}


def line_of(record: Mapping[str, Any]) -> bytes:
    return json.dumps({**record, "check": _check(record)}).encode() + b"\n"


def _check(record: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(record).encode()):08x}"


def _without_journal(out: Path, path: Path) -> UsageError:
    """What is said of an output that nothing is known of."""
    if out.with_name(out.name + ".journal").exists():
        return UsageError(
            f"{out} was begun by an earlier version of blip2, whose journal is not read",
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


@contextmanager
def locked(path: Path, out: Path, named: Path) -> Iterator[None]:
    """Keep other runs off an output while inside. The lock is on its hidden file, and dies with the process.

    Raises UsageError.

    Args:
        path: the hidden file.
        out: the output; if it is a file, it is locked too, as it may have another name elsewhere.
        named: the output as the user has it.
    """
    held = [_opened(path, named)]
    try:
        if out.is_file():
            held.append(_open(out, os.O_RDWR))  # as NFS wants it for a lock of one's own
            _lock(held[-1], named)
        yield
    finally:
        for descriptor in held:
            _release(descriptor)


def _opened(path: Path, named: Path) -> int:
    """The hidden file, locked."""
    while True:
        descriptor = _open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        try:
            _lock(descriptor, named)
            if _is_at(descriptor, path):
                return descriptor
        except _NoLocks:
            if not os.fstat(descriptor).st_size:
                path.unlink(missing_ok=True)
            _release(descriptor)
            raise
        except BaseException:
            _release(descriptor)
            raise
        _release(descriptor)  # another run has removed it meanwhile


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


class _NoLocks(UsageError):
    """The file system has no locks."""


_HELD: set[int] = set()
"""Descriptors with a lock. A child process gives them up, so that a lock ends with the process that took it."""


def _lock(descriptor: int, named: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"{named} is being written by another run", "Wait for it, or choose another --out.") from None
    except OSError as error:
        raise _NoLocks(
            f"cannot lock {named}: {error.strerror or error}",
            "The file system has no locks: write to another one, and copy the output there.",
        ) from None
    _HELD.add(descriptor)


def _release(descriptor: int) -> None:
    _HELD.discard(descriptor)
    os.close(descriptor)


def _let_go() -> None:
    while _HELD:
        os.close(_HELD.pop())


os.register_at_fork(after_in_child=_let_go)


def _open(path: Path, flags: int) -> int:
    """A descriptor of a file. Raises UsageError."""
    try:
        return os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UsageError(f"{path} is a symbolic link", f"Remove it: rm {path}") from None
        failure = cannot_write(path, error)
        raise UsageError(failure.message, failure.hint) from None
