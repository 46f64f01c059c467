"""vqa --wide: one output row for each image, with a column for each question."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from blip2cli.errors import UsageError
from blip2cli.records import Column, Result, RowError
from blip2cli.tasks.template import Template

NAMED = re.compile(r"([^\s=]*)=(.*)", re.DOTALL)
"""NAME=QUESTION, as it is typed; a text with a space before the = is a question alone."""

LONGEST_NAME = 60
"""Characters of a column's name that is made from a question."""

RESERVED = ("image", "error")


@dataclass(frozen=True)
class NamedQuestion:
    """A question for every image, and the column that its answers go to."""

    name: str
    template: Template


def named_questions(texts: Sequence[str], beside: Sequence[str]) -> list[NamedQuestion]:
    """The questions of --wide; one without a name gets that of its words. Raises UsageError.

    Args:
        texts: the questions as they were typed.
        beside: the endings of the names of columns beside each answer, such as _probability.
    """
    questions = []
    names: dict[str, str] = {}
    for text in texts:
        name, asked = _name_and_question(text)
        if not name:
            raise UsageError(f"no column can be named after the question {text!r}", _hint("answer", text))
        for column in (name, *(name + ending for ending in beside)):
            if column in RESERVED:
                raise UsageError(f"a question cannot have the column {column}", _hint(f"the_{column}", asked))
            if column in names:
                raise UsageError(
                    f"{names[column]!r} and {asked!r} would have the same column, {column}", _hint(f"{name}_2", asked)
                )
            names[column] = asked
        questions.append(NamedQuestion(name, Template(asked, "--prompt")))
    return questions


def check_name(name: str, example: str) -> None:
    """Check that a column can have the name that a question was given. Raises UsageError.

    Letters may be those of any language, with their marks. `example` is a name that can be given.
    """
    if not name.isidentifier():
        raise UsageError(
            f"a question cannot be named {name!r}", f"Use letters, digits and underscores, for example {example}."
        )


def _name_and_question(text: str) -> tuple[str, str]:
    """The column that a question is for, and the question itself. Raises UsageError."""
    match = NAMED.fullmatch(text.strip())
    if match is None:
        return _name_of(text), text
    name, asked = match[1], match[2].strip()
    if not asked:
        raise UsageError(f"there is no question in {text!r}", _hint(_name_of(name) or "people", "how many people?"))
    check_name(name, f'-p {_name_of(name) or "answer"}="{asked}"')
    return name, asked


def _name_of(text: str) -> str:
    """A question's words, joined with underscores."""
    name = re.sub(r"\W+", "_", text.lower()).strip("_")[:LONGEST_NAME].rstrip("_")
    return f"question_{name}" if name[:1].isdigit() else name


def _hint(name: str, text: str) -> str:
    return f'Name it: -p {name}="{text}"'


def columns_of(questions: Sequence[NamedQuestion], answer: Sequence[Column]) -> tuple[Column, ...]:
    """The columns of all questions, each with its scores beside it.

    Args:
        questions: the questions.
        answer: the columns of one answer, the answer itself first.
    """
    return tuple(
        replace(column, name=question.name if at == 0 else f"{question.name}_{column.name}")
        for question in questions
        for at, column in enumerate(answer)
    )


def widened(results: Iterator[Result], questions: Sequence[NamedQuestion]) -> Iterator[Result]:
    """The results of each input row, one for each question, as one result."""
    group: list[Result] = []
    for result in results:
        group.append(result)
        if result.last:
            values = tuple(chain.from_iterable(answer.values for answer in group))
            empty = any(answer.empty for answer in group)
            yield replace(result, values=values, error=_error(group, questions), empty=empty)
            group = []


def _error(group: Sequence[Result], questions: Sequence[NamedQuestion]) -> RowError | None:
    """The error of the image, or else the first of a question, with its name; the other answers are kept."""
    errors = [result.error for result in group]
    if all(error == errors[0] for error in errors):
        return errors[0]
    question, error = next(pair for pair in zip(questions, errors, strict=True) if pair[1] is not None)
    return None if error is None else replace(error, detail=f"{question.name}: {error.detail}")
