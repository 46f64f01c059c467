"""A text with places for a manifest's columns: `{name}`. What is filled in is text, whatever stands in it."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from blip2cli.errors import UsageError, reason
from blip2cli.host.storage import reading_hint
from blip2cli.records import Row, RowError


def nothing_in(column: str | None) -> RowError:
    """The error of a row that has nothing in a column that is needed."""
    return RowError("missing", f"nothing in column {column}")


class MissingColumn(Exception):
    """A row has nothing in a column that is needed; `error` is the row's."""

    def __init__(self, column: str) -> None:
        self.error = nothing_in(column)
        super().__init__(str(self.error))


@dataclass(frozen=True)
class Template:
    """A text of one option. `{{` and `}}` are braces; a place without a name is for the question.

    Raises UsageError for anything else in braces.
    """

    text: str
    option: str

    def __post_init__(self) -> None:
        try:
            for _, name, form, conversion in self._pieces:
                if form or conversion or any(mark in (name or "") for mark in ".["):
                    raise ValueError("only names of columns stand in braces")
        except ValueError as error:
            raise UsageError(f"{self.option} {self.text!r}: {error}", "Write {{ and }} for braces.") from None

    @property
    def names(self) -> list[str]:
        """The columns it has places for."""
        return [name for _, name, _, _ in self._pieces if name]

    @cached_property
    def _pieces(self) -> list[tuple[str, str | None, str | None, str | None]]:
        return list(string.Formatter().parse(self.text))

    def check(self, columns: Sequence[str]) -> None:
        """See that the input has the columns. Raises UsageError."""
        gone = next((name for name in self.names if name not in columns), None)
        if gone is not None:
            there = f"It has: {', '.join(columns)}." if columns else "It has no columns."
            raise UsageError(
                f"{self.option} has a place for {gone}, which the input has not",
                f"{there} Write {{{{ and }}}} for braces.",
            )

    def fill(self, row: Row, question: str = "") -> str:
        """The text for one row. Raises MissingColumn."""
        parts = []
        for literal, name, _, _ in self._pieces:
            parts.append(literal)
            if name:
                value = row.columns.get(name)
                if value is None:
                    raise MissingColumn(name)
                parts.append(str(value))
            elif name is not None:
                parts.append(question)
        return "".join(parts)


def check_place(template: str | None) -> None:
    """See that a --template, if there is one, has a place for the question. Raises UsageError."""
    if template is not None and "{}" not in template:
        raise UsageError("--template has no place for the question", "Write {} where it goes: 'Question: {} Answer:'.")


def lines_of(option: str, file: object) -> tuple[str, ...]:
    """The lines of a text file that are not blank. Raises UsageError."""
    from io import StringIO

    from blip2cli.inputs.encoding import SAVE_AS_UTF_8, NotText, text_of

    try:
        text = text_of(str(file))
    except OSError as error:
        raise UsageError(
            f"cannot read {option} {file}: {reason(error)}",
            reading_hint(error, "Name a text file that holds one a line."),
        ) from None
    except NotText as error:
        raise UsageError(f"cannot read {option} {file}: it is {error}", SAVE_AS_UTF_8) from None
    found = tuple(line.strip() for line in StringIO(text, newline=None) if line.strip())
    if not found:
        raise UsageError(f"{option} {file} is empty", "Name a text file that holds one a line.")
    return found
