"""JSON lines: a row an object, appended and committed in place."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from blip2cli.errors import OutputError, UsageError
from blip2cli.journal import Journal
from blip2cli.outputs import Layout
from blip2cli.records import Result


class JsonlOutput:
    """A JSON-lines file. A commit records its size; resuming cuts off what lies behind the last one."""

    def __init__(self, out: Path, layout: Layout, journal: Journal) -> None:
        self.out = out
        self.layout = layout
        self.journal = journal
        self.done = self.committed = journal.commit
        self.size: int = journal.commit.state.get("size", 0)
        if not self.size:
            out.touch()
        there = out.stat().st_size if out.exists() else 0
        if there < self.size:
            raise UsageError(f"{out} is shorter than it was", "Something else changed it; use --overwrite.")
        if there > self.size:
            os.truncate(out, self.size)

    def write(self, results: Sequence[Result]) -> None:
        lines = b"".join(json_line(self.layout.record(result)) for result in results)
        try:
            with open(self.out, "ab") as file:
                file.write(lines)
        except OSError as error:
            raise self._full(error) from None
        self.size += len(lines)
        self.done = self.done.after(results)

    def commit(self) -> None:
        if self.done.rows > self.journal.commit.rows:
            self._commit(finished=False)

    def finish(self) -> None:
        if not self.done.finished:
            self._commit(finished=True)

    def records(self) -> Iterator[dict[str, Any]]:
        with open(self.out, "rb") as file:
            yield from map(json.loads, file)

    def _commit(self, finished: bool) -> None:
        try:
            with open(self.out, "ab") as file:
                os.fsync(file.fileno())
            self.journal.add(replace(self.done, finished=finished, state={"size": self.size}))
        except OSError as error:
            raise self._full(error) from None

    def _full(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self.out}: {error.strerror}", "Make room, then run again with --resume.")


def json_line(record: dict[str, Any]) -> bytes:
    """A record as a line of UTF-8 JSON."""
    try:
        text = json.dumps(record, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError:
        text = json.dumps(_finite(record), ensure_ascii=False, default=_plain)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _finite(value: Any) -> Any:
    """The value with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    return [_finite(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _plain(value: Any) -> Any:
    """What JSON has no word for: tensors as lists, bytes in base64, dates in ISO 8601, the rest as text."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "as_py"):
        return _unpacked(value)
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, (date, datetime, time)):
        return value.isoformat()
    return str(value)


def _unpacked(scalar: Any) -> Any:
    """An Arrow scalar that Python may have no value for."""
    import pyarrow as pa

    if not scalar.is_valid:
        return None
    if isinstance(scalar, Mapping):
        return dict(scalar)
    if pa.types.is_nested(scalar.type):
        return list(scalar)
    return scalar.cast(pa.string()).as_py() if pa.types.is_temporal(scalar.type) else scalar.as_py()
