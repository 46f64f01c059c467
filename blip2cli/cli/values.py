"""Values of options: parses a text to the option's type, or says what is wrong with it.

Typer gets no types: every option with a value is parsed here, so that all messages have the same form, whatever the
version of Typer.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from typer.models import ArgumentInfo, OptionInfo

from blip2cli.errors import UsageError

MOST = 2**63 - 1
"""The largest number of an option: larger ones would overflow 64 bits."""


class WrongValue(UsageError):
    """An option's value is wrong. Raised while the command line is parsed."""


LONGEST = 60
"""Characters of a wrong value that are shown."""


@dataclass(frozen=True)
class Value:
    """The values that an option takes. Stored with the option in a command's signature, also for the reference.

    `kind` is bool for a flag. `several`: the option may be repeated.
    """

    kind: Any
    several: bool
    metavar: str
    low: float | None = None
    high: float | None = None
    parse: Callable[[str], Any] | None = None

    @property
    def choices(self) -> tuple[str, ...]:
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def bounds(self) -> str:
        """For example: "from 1 to 9"."""
        limits = (("from", self.low), ("to", self.high))
        return " ".join(f"{word} {bound:g}" for word, bound in limits if bound is not None)


def spelled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a command whose options are parsed by this module."""

    def command(**given: Any) -> Any:
        return function(**given)

    parameters = inspect.signature(function, eval_str=True).parameters.values()
    replaced = [parameter.replace(annotation=_annotation(parameter)) for parameter in parameters]
    command.__signature__ = inspect.Signature(replaced)  # type: ignore[attr-defined]  # read by Typer
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in replaced}
    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    return command


def _annotation(parameter: inspect.Parameter) -> Any:
    kind, *marks = get_args(parameter.annotation) or (parameter.annotation,)
    if marks and isinstance(marks[0], ArgumentInfo):
        argument = copy(marks[0])
        argument.parser = parser("an argument", Value(str, True, argument.metavar or ""))
        return Annotated[kind, argument]
    if not marks or not isinstance(marks[0], OptionInfo):
        return parameter.annotation
    option = copy(marks[0])
    if not isinstance(option.default, str):  # in Annotated, Typer keeps the first name as the default
        option.default = f"--{parameter.name.replace('_', '-')}"
    value = _value(kind, option)
    if value.kind is bool:
        return Annotated[bool, option, value]
    option.parser = parser(option.default, value)
    option.metavar = " ".join(filter(None, [value.metavar, value.bounds]))
    option.min = option.max = None
    return Annotated[list[str] | None if value.several else str | None, option, value]


def _value(kind: Any, option: OptionInfo) -> Value:
    kind = _without_none(kind)
    several = get_origin(kind) is list
    kind = get_args(kind)[0] if several else kind
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    metavar = option.metavar or "|".join(choices) or "TEXT"
    return Value(kind, several, metavar, option.min, option.max, option.parser)


def _without_none(kind: Any) -> Any:
    if get_origin(kind) not in (Union, UnionType):
        return kind
    (only,) = (part for part in get_args(kind) if part is not NoneType)
    return only


def parser(option: str, value: Value) -> Callable[[Any], Any]:
    """A function from an option's text to its value, which raises WrongValue for one that is wrong.

    Args:
        option: its name, such as --limit.
        value: what it takes.
    """

    def parse(raw: Any) -> Any:
        if isinstance(raw, (bool, list, dict)):  # of a TOML file
            raise WrongValue(f"{option} {raw!r} is not a text or a number", f"It takes {value.metavar}.")
        text = str(raw)
        if "\0" in text:
            raise WrongValue(f"{option} contains a NUL character", "Leave it out.")
        if not text.strip() and value.metavar != "TEXT":
            raise WrongValue(f"{option} is empty", f"It takes {value.metavar}; or leave it out.")
        if value.kind in (int, float):
            return _number(option, text, value)
        parsed = _parsed(option, text, value)
        if value.choices and parsed not in value.choices:
            raise WrongValue(f"{option} {text} is not one of the choices", f"Use {' or '.join(value.choices)}.")
        return parsed

    return parse


def _parsed(option: str, text: str, value: Value) -> Any:
    """Parsed by the option's own function, if it has one."""
    try:
        if value.parse is not None:
            return value.parse(text)
        return Path(text) if value.kind is Path else text
    except UsageError as error:
        raise WrongValue(error.message, error.hint) from None
    except ValueError as error:
        raise WrongValue(f"{option} {text}: {error}", f"It takes {value.metavar}.") from None


def _number(option: str, text: str, value: Value) -> int | float:
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    name = "a whole number" if value.kind is int else "a number"
    hint = f"Give {name}{f' {value.bounds}' if value.bounds else ''}."
    form = r"\s*[+-]?\d+\s*" if value.kind is int else r"[^_]*"
    try:
        number: int | float = value.kind(text) if re.fullmatch(form, text, re.ASCII) else math.nan
    except ValueError:  # not a number; or one of more digits than Python reads
        number = math.nan
    if math.isnan(number):
        raise WrongValue(f"{option} {shown} is not {name}", hint)
    if math.isinf(number) or abs(number) > MOST:
        raise WrongValue(f"{option} {shown} is too large", hint)
    if value.low is not None and number < value.low:
        raise WrongValue(f"{option} {shown} is below {value.low:g}", hint)
    if value.high is not None and number > value.high:
        raise WrongValue(f"{option} {shown} is above {value.high:g}", hint)
    return number
