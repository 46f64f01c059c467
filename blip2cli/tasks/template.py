"""A template with a manifest's columns in braces: `{name}`. The content of a column is always plain text."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from blip2cli.errors import UsageError, reason
from blip2cli.host.storage import reading_hint
from blip2cli.records import Row, RowError


def empty_column(column: str | None, row: Row) -> RowError:
    """The error of a row that has nothing in a column that is needed."""
    return RowError.missing(f"column {column} is empty", row.columns)


def check_column(option: str, name: str, columns: Sequence[str], hint: str = "") -> None:
    """Check that the input has a column that an option names. Raises UsageError; `hint` is added to what to do."""
    if name not in columns:
        existing = f"It has: {', '.join(columns)}." if columns else "It has no columns."
        raise UsageError(f"{option} uses column {name}, which the input does not have", f"{existing}{hint}")


class MissingColumn(Exception):
    """A row has nothing in a column that is needed; `error` is the row's."""

    def __init__(self, column: str, row: Row) -> None:
        self.error = empty_column(column, row)
        super().__init__(str(self.error))


@dataclass(frozen=True)
class Template:
    """A text of one option. `{{` and `}}` are braces; `{}` stands for the question.

    Raises UsageError for anything else in braces.
    """

    text: str
    option: str

    def __post_init__(self) -> None:
        try:
            for _, name, form, conversion in self._pieces:
                if form or conversion or any(mark in (name or "") for mark in ".["):
                    raise ValueError("only column names may be in braces")
        except ValueError as error:
            raise UsageError(f"{self.option} {self.text!r}: {error}", "Write {{ and }} for braces.") from None

    @property
    def names(self) -> list[str]:
        """The columns that it uses."""
        return [name for _, name, _, _ in self._pieces if name]

    @property
    def has_place(self) -> bool:
        """Whether it contains {}."""
        return any(name == "" for _, name, _, _ in self._pieces)

    @cached_property
    def _pieces(self) -> list[tuple[str, str | None, str | None, str | None]]:
        return list(string.Formatter().parse(self.text))

    def check(self, columns: Sequence[str]) -> None:
        """Check that the input has the columns. Raises UsageError."""
        for name in self.names:
            check_column(self.option, name, columns, " Write {{ and }} for braces.")

    def fill(self, row: Row, question: str = "") -> str:
        """The text for one row. Raises MissingColumn."""
        parts = []
        for literal, name, _, _ in self._pieces:
            parts.append(literal)
            if name:
                value = row.columns.get(name)
                if value is None:
                    raise MissingColumn(name, row)
                parts.append(str(value))
            elif name is not None:
                parts.append(question)
        return "".join(parts)


def check_place(template: str | None) -> None:
    """Check that a --template, if there is one, contains {} for the question. Raises UsageError."""
    if template is not None and "{}" not in template:
        raise UsageError("--template does not contain {}", "Write {} where it goes: 'Question: {} Answer:'.")


def texts_in_file(option: str, file: object) -> tuple[str, ...]:
    """The lines of a text file that are not blank. Raises UsageError, also for a table or an archive."""
    from io import StringIO

    from blip2cli.inputs import FILE_FORMATS, format_of
    from blip2cli.inputs.encoding import SAVE_AS_UTF_8, NotText, text_of

    if format_of(str(file)) not in (None, FILE_FORMATS["list"]):
        raise UsageError(
            f"{option} {file} is not a text file",
            "Give a .txt file with one on each line. A table with images and texts is an INPUT.",
        )
    try:
        text = text_of(str(file))
    except OSError as error:
        raise UsageError(
            f"cannot read {option} {file}: {reason(error)}",
            reading_hint(error, "Give a text file with one on each line."),
        ) from None
    except NotText as error:
        raise UsageError(f"cannot read {option} {file}: it is {error}", SAVE_AS_UTF_8) from None
    lines = tuple(line.strip() for line in StringIO(text, newline=None) if line.strip())
    if not lines:
        raise UsageError(f"{option} {file} is empty", "Give a text file with one on each line.")
    return lines
