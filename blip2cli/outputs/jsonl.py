"""JSON lines: a row an object."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

from blip2cli.host import storage
from blip2cli.host.json_lines import parsed_line
from blip2cli.outputs.lines import LinesOutput
from blip2cli.records import Result


class JsonlOutput(LinesOutput):
    """A JSON-lines file, compressed where its name says so."""

    def text(self, results: Sequence[Result]) -> bytes:
        return b"".join(json_line(self.layout.record(result)) for result in results)

    @property
    def keys(self) -> list[str]:
        """The names in each line."""
        return self.layout.names

    def continues(self, data: bytes) -> bool:
        *whole, last = data.split(b"\n")
        begins = f'{{"{self.keys[0]}": '.encode()
        return all(_has_keys(line, self.keys) for line in whole) and last[: len(begins)] == begins[: len(last)]

    def records(self) -> Iterator[dict[str, Any]]:
        with storage.decompressed(str(self.out)) as opened:
            for line in opened.file:
                yield parsed_line(line.decode())


def _has_keys(line: bytes, keys: list[str]) -> bool:
    """Whether a line is an object with these names, in this order."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and list(record) == keys


def json_line(record: dict[str, Any]) -> bytes:
    """A record as a line of UTF-8 JSON."""
    try:
        text = json.dumps(record, ensure_ascii=False, allow_nan=False, default=plain)
    except ValueError:
        text = json.dumps(_finite(record), ensure_ascii=False, default=plain)
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


def plain(value: Any) -> Any:
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


def _entries(scalar: Any) -> Any:
    """A struct as an object; as pairs, where several of its fields have one name."""
    names = [field.name for field in scalar.type]
    if len(set(names)) == len(names):
        return dict(scalar)
    return [[name, scalar[at]] for at, name in enumerate(names)]


def _unpacked(scalar: Any) -> Any:
    """An Arrow scalar that Python may have no value for."""
    import pyarrow as pa

    if not scalar.is_valid:
        return None
    if isinstance(scalar, Mapping):
        return _entries(scalar)
    if pa.types.is_nested(scalar.type):
        return list(scalar)
    return scalar.cast(pa.string()).as_py() if pa.types.is_temporal(scalar.type) else scalar.as_py()
