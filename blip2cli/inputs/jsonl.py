"""JSON-lines manifests: one object a line; values are carried unchanged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from blip2cli.errors import UsageError
from blip2cli.host import storage
from blip2cli.host.json_lines import parsed_line
from blip2cli.inputs.columns import ColumnChoice, choose_columns
from blip2cli.inputs.encoding import LINE, file_encoding, lines_of, not_text, unreadable
from blip2cli.inputs.inference import Inference
from blip2cli.inputs.manifest import Manifest
from blip2cli.records import Row

if TYPE_CHECKING:
    import pyarrow as pa


MOST_JSON_LEVELS = 200
"""Levels of objects and lists within each other that a line may have."""

NOT_UTF_8 = "is not UTF-8"
"""What is wrong with a line in another encoding."""

OBJECTS_HINT = 'Each line must be an object such as {"image": "a.jpg"}.'

STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
"""A string of JSON."""

BRACKETS = re.compile(rb"[][{}]")


@dataclass(frozen=True)
class Line:
    """One line of the file: its number, counted from 1, and its object, or what is wrong with it."""

    number: int
    record: dict[str, Any] | None = None
    fault: str = ""


class JsonlManifest(Manifest):
    """One JSON-lines file. A line that is not a JSON object becomes an error row."""

    def __init__(self, name: str, columns: ColumnChoice) -> None:
        self.name = name
        self._encoding = file_encoding(name, columns.encoding)
        self._inference = Inference(line.record for line in self._records() if line.record is not None)
        names = list(self._inference.fields)
        if not names:
            raise self._without_objects()
        self.columns = choose_columns(name, names, columns)

    def rows(self, start: int = 0) -> Iterator[Row]:
        for number, line in enumerate(self._records(start), start):
            if line.record is None:
                yield self.columns.broken(number, f"line {line.number} {line.fault}")
            else:
                yield self.columns.row(line.record, number)

    def count(self) -> int | None:
        return sum(1 for _ in self._lines())

    def schema(self) -> pa.Schema:
        return self._inference.schema(self.columns.carried)

    def _without_objects(self) -> UsageError:
        """What to raise for a file of which no line is an object."""
        first = next(self._records(), None)
        if first is not None and first.fault == NOT_UTF_8:
            return not_text(self.name, self._encoding)
        return UsageError(f"{self.name} contains no JSON objects", OBJECTS_HINT)

    def _records(self, start: int = 0) -> Iterator[Line]:
        for number, text in islice(self._lines(), start, None):
            yield _parsed(number, text)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines that are not blank, in UTF-8, with their numbers from 1; of one longer than LINE its beginning."""
        try:
            with storage.decompressed(self.name) as opened:
                number, within = 0, False
                for piece in lines_of(opened.file, self._encoding):
                    begins, within = not within, not piece.endswith(b"\n")
                    number += begins
                    text = piece.removeprefix(b"\xef\xbb\xbf") if number == 1 else piece
                    if begins and text.strip():
                        yield number, text
        except UnicodeError:
            raise not_text(self.name, self._encoding) from None
        except OSError as error:
            raise unreadable(self.name, error) from None


def _parsed(number: int, text: bytes) -> Line:
    if len(text) >= LINE and not text.endswith(b"\n"):
        return Line(number, fault=f"is longer than {LINE:,} bytes")
    try:
        record = parsed_line(text.decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        return Line(number, fault=NOT_UTF_8)
    except (ValueError, RecursionError):
        record = None
    if record is not None and _is_deep(text):
        return Line(number, fault=f"is nested more than {MOST_JSON_LEVELS} levels deep")
    return Line(number, record) if isinstance(record, dict) else Line(number, fault="is not a JSON object")


def _is_deep(text: bytes) -> bool:
    """Whether JSON has more than MOST_LEVELS levels, so that those who walk through it would run out of stack."""
    if text.count(b"[") + text.count(b"{") <= MOST_JSON_LEVELS:
        return False
    level = deepest = 0
    for bracket in BRACKETS.findall(STRING.sub(b"", text)):
        level += 1 if bracket in b"[{" else -1
        deepest = max(deepest, level)
    return deepest > MOST_JSON_LEVELS
