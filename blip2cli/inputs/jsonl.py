"""JSON-lines manifests: one object a line; values are carried exactly as they stand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from blip2cli.errors import UsageError
from blip2cli.host import storage
from blip2cli.inputs.manifest import Layout, inferred, lay_out
from blip2cli.records import Row

if TYPE_CHECKING:
    import pyarrow as pa

    from blip2cli.inputs import ColumnChoice


class JsonlManifest:
    """One JSON-lines file. A line that is no JSON object becomes an error row."""

    manifest_text = True

    def __init__(self, name: str, columns: ColumnChoice) -> None:
        self.name = name
        names = dict.fromkeys(key for _, record in self._records() for key in record or {})
        if not names:
            raise UsageError(f"{name} holds no JSON objects", 'Each line must be an object such as {"image": "a.jpg"}.')
        self._layout: Layout = lay_out(name, list(names), columns)

    def rows(self, start: int = 0) -> Iterator[Row]:
        for number, (line, record) in enumerate(self._records(start), start):
            if record is None:
                yield self._layout.broken(number, f"line {line} is not a JSON object")
            else:
                yield self._layout.row(record, number)

    def count(self) -> int | None:
        return sum(1 for _ in self._lines())

    def column_names(self) -> list[str]:
        return list(self._layout.carried)

    def schema(self) -> pa.Schema:
        return inferred(self._layout.carried, (record for _, record in self._records() if record is not None))

    def _records(self, start: int = 0) -> Iterator[tuple[int, dict[str, Any] | None]]:
        for number, line in islice(self._lines(), start, None):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            yield number, record if isinstance(record, dict) else None

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines that are not blank, with their numbers from 1."""
        try:
            with storage.decompressed(self.name) as opened:
                for number, line in enumerate(opened.file, 1):
                    text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                    if text.strip():
                        yield number, text
        except OSError as error:
            raise UsageError(
                f"cannot read {self.name}: {error.strerror or error}", "Check the path and its permissions."
            ) from None
