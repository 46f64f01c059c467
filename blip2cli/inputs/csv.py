"""CSV and TSV manifests: the first line names the columns; every value is carried as the text it is.

The file is read through once before its first row is given, so that a quotation mark that is never closed, or text in
another encoding, is reported before the model is loaded, whatever line it is in.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from blip2cli.errors import UsageError
from blip2cli.inputs.columns import ColumnChoice, choose_columns, image_column
from blip2cli.inputs.encoding import LINE, file_encoding, text_file
from blip2cli.inputs.image_formats import is_image
from blip2cli.inputs.manifest import Manifest
from blip2cli.records import Row

if TYPE_CHECKING:
    import pyarrow as pa


CELL = 16 << 20
"""Longest cell, in characters, that is read."""

SEPARATORS = (",", ";", "\t")
"""What may separate cells; in a .tsv file the tab is tried first."""

SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n?")
"""The line by which Excel says what separates cells."""

CLOSE_IT = 'Close it; write a quotation mark within a cell twice, and put the cell into quotation marks ("5"" wide").'


class CsvRow(NamedTuple):
    """One row of the file: the number of its first line, counted from 1, its cells, and what is wrong with it."""

    line: int
    cells: Sequence[str]
    fault: str | None = None


@dataclass(frozen=True)
class Form:
    """How a file is written: what separates cells, and whether cells may be in quotation marks."""

    separator: str
    quoted: bool = True

    def cells(self, lines: Iterable[str], strict: bool = True) -> Any:
        """A reader of the lines. It raises csv.Error; with `strict`, for quotation marks at the wrong place too."""
        csv.field_size_limit(CELL)
        if self.quoted:
            return csv.reader(lines, delimiter=self.separator, strict=strict)
        return csv.reader(lines, delimiter=self.separator, quoting=csv.QUOTE_NONE, strict=strict)


@dataclass
class Lines:
    """The lines of a text file as a reader takes them; it keeps those of the current record."""

    name: str
    file: TextIOWrapper
    held: list[str] = field(default_factory=list)
    number: int = 0
    ended: bool = False
    with_zeros: bool = False

    def __iter__(self) -> Iterator[str]:
        for line in iter(partial(self.file.readline, LINE), ""):
            self.number += 1
            self.held.append(line)
            if len(line) == LINE and not line.endswith(("\n", "\r")):
                raise UsageError(
                    f"{self.name}: line {self.number} is longer than {LINE:,} characters", "Is it a CSV file?"
                )
            if "\0" in line:
                self.with_zeros = True
                line = line.replace("\0", "")  # which not every Python takes
            yield line
        self.ended = True

    def begin(self) -> None:
        """Forget the lines of the previous record."""
        self.held.clear()
        self.with_zeros = False

    @property
    def first(self) -> int:
        """The number of the record's first line."""
        return self.number - len(self.held) + 1


class CsvManifest(Manifest):
    """One CSV file: in UTF-8, UTF-16 or the encoding that the user names; commas, semicolons or tabs between cells."""

    def __init__(self, name: str, columns: ColumnChoice) -> None:
        self.name = name
        self._encoding = file_encoding(name, columns.encoding)
        first = self._first_line()
        declared = SEPARATOR_LINE.fullmatch(first)
        self._has_separator_line = declared is not None
        self._form = Form(declared[1] if declared else _separator(first, name, columns))
        header = next(self._records(()), None)
        if header is None:
            raise UsageError(f"{name} is empty", "Its first line must name the columns.")
        if header.fault:
            raise UsageError(f"{name}: line {header.line} {header.fault}", "It must name the columns.")
        self._header = list(header.cells)
        self.columns = choose_columns(name, self._header, columns)
        if self._form.separator == "\t" and self._quotes_are_text():
            self._form = Form("\t", quoted=False)
        self._count = sum(1 for _ in self._records(self._header)) - 1

    @property
    def is_typed(self) -> bool:
        return False

    def rows(self, start: int = 0) -> Iterator[Row]:
        for number, record in enumerate(self._records(self._header), -1):
            if number < max(start, 0):
                continue
            if record.fault:
                yield self.columns.broken(number, f"line {record.line} {record.fault}")
            elif len(record.cells) > len(self._header):
                cells = f"row {number + 1} has {len(record.cells)} cells, not {len(self._header)}"
                yield self.columns.broken(number, cells)
            else:
                yield self.columns.row(dict(zip(self._header, record.cells, strict=False)), number)

    def count(self) -> int | None:
        return self._count

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([pa.field(name, pa.string()) for name in self.columns.carried])

    def _first_line(self) -> str:
        """The first line that is not blank."""
        with text_file(self.name, self._encoding) as file:
            for line in iter(partial(file.readline, LINE), ""):
                if line.strip("\r\n"):
                    return line
        return ""

    def _records(self, header: Sequence[str]) -> Iterator[CsvRow]:
        """The rows, the header first; empty lines are skipped. Raises UsageError.

        With the `header`, a cell that goes over several lines is searched for rows that it has swallowed.
        """
        with text_file(self.name, self._encoding) as file:
            lines = Lines(self.name, file)
            reader = self._form.cells(lines)
            if self._has_separator_line:
                next(filter(None, reader), None)
            while True:
                lines.begin()
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield CsvRow(lines.first, (), self._fault(lines, error))
                    continue
                if len(lines.held) > 1 and header and self._swallowed(lines.held, header):
                    raise self._unclosed(lines.first)
                if lines.with_zeros:
                    yield CsvRow(lines.first, (), "holds NUL bytes")
                elif cells:
                    yield CsvRow(lines.first, cells)

    def _fault(self, lines: Lines, error: csv.Error) -> str:
        """What is wrong with a row that is one line. Raises UsageError where other rows are within it."""
        if lines.ended or len(lines.held) > 1:
            raise self._unclosed(lines.first)
        if "field larger" in str(error):
            return f"has a cell longer than {CELL:,} characters"
        return "has text after a closing quotation mark"

    def _unclosed(self, line: int) -> UsageError:
        return UsageError(f"{self.name}: a quotation mark in line {line} is not closed", CLOSE_IT)

    def _swallowed(self, lines: Sequence[str], header: Sequence[str]) -> bool:
        """Whether one of a record's lines, except the first, looks like a row with an image."""
        image = self.columns.image
        if image is None:
            return False
        at = header.index(image)
        for line in lines[1:]:
            cells: list[str] = next(self._form.cells([line], strict=False), [])
            if len(cells) == len(header) and is_image(cells[at]):
                return True
        return False

    def _quotes_are_text(self) -> bool:
        """Whether a table with tabs takes quotation marks as text.

        It does if some line uses them wrongly, and every line by itself has all its cells.
        """
        odd = False
        with text_file(self.name, self._encoding) as file:
            for line in iter(partial(file.readline, LINE), ""):
                if not line.strip("\r\n"):
                    continue
                if line.count("\t") != len(self._header) - 1:
                    return False
                odd = odd or ('"' in line and not self._well_formed(line))
        return odd

    def _well_formed(self, line: str) -> bool:
        try:
            list(self._form.cells([line.replace("\0", "")]))
        except csv.Error:
            return False
        return True


def _separator(line: str, name: str, columns: ColumnChoice) -> str:
    """What separates the cells of the first line: what gives it the image's column, or else the most cells."""
    first = "\t" if ".tsv" in Path(name).suffixes else ","
    separators = sorted(SEPARATORS, key=lambda separator: separator != first)
    split = {separator: _split(line, separator) for separator in separators}
    for separator, cells in split.items():
        if (columns.image or image_column(cells, columns)) in cells:
            return separator
    return max(split, key=lambda separator: len(split[separator]))


def _split(line: str, separator: str) -> list[str]:
    try:
        return next(Form(separator).cells([line.replace("\0", "")], strict=False), [])
    except csv.Error:
        return []
