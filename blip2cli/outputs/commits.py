"""What a journal says: its records, and how they are written as lines and read again.

Every line carries a checksum of itself. Reading takes nothing for granted: the file may have been edited.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from blip2cli.records import Result

VERSION = 2
"""That of the file's lines. Files of version 1 were called OUT.journal, and are not read."""

LONGEST_LINE = 1 << 26
"""Bytes of the longest line that is read."""

LARGEST = 1 << 62
"""Above any number of rows or bytes."""

UNKNOWN = ""
"""The type of a column where it is not known, which goes with any."""

Columns = Mapping[str, str]
"""Names of columns, in their order → their types, in words."""

Stamps = Sequence[Sequence[Any]]
"""[size in bytes, checksum] of each file of a shard."""


@dataclass(frozen=True)
class Commit:
    """The state after the last committed row. `state` belongs to the output's format."""

    rows: int = 0
    last: str | None = None
    errors: int = 0
    finished: bool = False
    state: dict[str, Any] = field(default_factory=dict)

    def after(self, results: Sequence[Result]) -> Commit:
        """The state after these results too, the last of which is its input row's last."""
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
        names = sorted(name for name in {*before, *after} if _differ(name, before, after))
        changed = [f"{name} was {before.get(name)!r}, is {after.get(name)!r}" for name in names]
        for one, other in ((self.carried, now.carried), (self.columns, now.columns)):
            if one is not None and other is not None:
                changed += _changed_columns(one, other)
        return changed


def _differ(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a setting is another one; where both are known, 0 is not the same as None."""
    if name in before and name in after:
        return bool(before[name] != after[name])
    return bool(before.get(name) or after.get(name))


def _changed_columns(before: Columns, now: Columns) -> list[str]:
    gone = [f"column {name} is gone" for name in before if name not in now]
    new = [f"column {name} is new" for name in now if name not in before]
    types = []
    for name, kind in before.items():
        new_kind = now.get(name, UNKNOWN)
        if new_kind != kind and UNKNOWN not in (kind, new_kind):
            types.append(f"column {name} was {kind}, is {new_kind}")
    if not gone and not new and list(before) != list(now):
        types.append(f"the columns were in the order {', '.join(before)}")
    return [*gone, *new, *types]


@dataclass(frozen=True)
class JournalContent:
    """A journal as it was read. `shards` has the stamps of published shards by number, `end` the size of its lines."""

    header: Header
    shards: dict[int, Stamps]
    commit: Commit
    end: int


class Damaged(ValueError):
    """A line is not as it was written."""


class OtherVersion(ValueError):
    """The file is of another version."""


def parsed_journal(file: Any) -> JournalContent | None:
    header, commit, shards, end = None, Commit(), dict[int, Stamps](), 0
    while line := file.readline(LONGEST_LINE):
        if not line.endswith(b"\n"):
            if header is None or len(line) == LONGEST_LINE:
                raise Damaged("its first line is incomplete" if header is None else "a line is too long")
            break  # torn, as a run leaves it that is killed
        record = _checked(line)
        if header is None:
            header = header_of_line(record)
        elif "shard" in record:
            number, stamps = _shard_of(record)
            shards[number] = stamps
        else:
            commit = _commit_of(record)
        end += len(line)
    return None if header is None else JournalContent(header, shards, commit, end)


def _checked(line: bytes) -> dict[str, Any]:
    """A line's record, if it is as it was written."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise Damaged("a line is not JSON") from None
    if not isinstance(record, dict):
        raise Damaged("a line is not an object")
    version = record.get("blip2")
    if "blip2" in record and version != VERSION:
        raise OtherVersion(f"{version!r:.20}, not {VERSION}")
    check = record.pop("check", None)
    if check != _check(record):
        raise Damaged("a line was changed")
    return record


def header_of_line(record: dict[str, Any]) -> Header:
    if record.keys() != {"blip2", "settings", "carried", "columns"}:
        raise Damaged("its first line does not hold settings")
    settings, carried, columns = record["settings"], record["carried"], record["columns"]
    if not isinstance(settings, dict):
        raise Damaged("its settings are not an object")
    return Header(settings, _columns_of(carried), _columns_of(columns))


def _columns_of(value: Any) -> Columns | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(_is_pair(entry) for entry in value):
        raise Damaged("its columns are not names and types")
    return dict(value)


def _is_pair(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(text, str) for text in entry)


def _commit_of(record: dict[str, Any]) -> Commit:
    if record.keys() != {one.name for one in fields(Commit)}:
        raise Damaged("a line is not a commit")
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
        raise Damaged("a commit holds values that are not valid")
    return commit


def _shard_of(record: dict[str, Any]) -> tuple[int, Stamps]:
    number, stamps = record.get("shard"), record.get("files")
    good = isinstance(stamps, list) and all(isinstance(stamp, list) and len(stamp) == 2 for stamp in stamps)
    if not (_is_count(number) and good and _has_counts(stamps)):
        raise Damaged("the record of a shard is not valid")
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


def header_line(header: Header) -> dict[str, Any]:
    carried = None if header.carried is None else list(map(list, header.carried.items()))
    columns = None if header.columns is None else list(map(list, header.columns.items()))
    return {"blip2": VERSION, "settings": header.settings, "carried": carried, "columns": columns}


def line_of(record: Mapping[str, Any]) -> bytes:
    return json.dumps({**record, "check": _check(record)}).encode() + b"\n"


def _check(record: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(record).encode()):08x}"
