"""Options given in Python, by the names that they have on the command line: what is wrong is said in the same words."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from blip2cli.errors import UsageError
from blip2cli.settings.option import Opt, Options

R = TypeVar("R", bound=Options)


def record_of(kind: type[R], values: Mapping[str, Any]) -> R:
    """The record with these values. Raises UsageError for a value of another type, or out of bounds."""
    hints = get_type_hints(kind, include_extras=True)
    for name, value in values.items():
        hint = hints[name]
        opt = next((part for part in get_args(hint) if isinstance(part, Opt)), None)
        fault = _fault(value, get_args(hint)[0] if get_origin(hint) is Annotated else hint, opt)
        if fault:
            raise UsageError(f"{name}={value!r} is {fault}", f"See help({kind.__module__}.{kind.__name__}).")
    return kind(**values)


def check_names(function: str, given: Mapping[str, Any], *kinds: type[Options], own: tuple[str, ...] = ()) -> None:
    """Check the names of arguments. Raises UsageError for one that there is not, with the nearest.

    Args:
        function: the function, as it is called.
        given: its arguments.
        kinds: the records whose fields it takes.
        own: its other arguments.
    """
    known = [*own, *(field.name for kind in kinds for field in fields(kind))]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.5)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"{function}() has no argument {name}{meant}", f"It takes: {', '.join(known)}.")


def chosen(kind: type[Options], given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arguments that are fields of a record."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in given.items() if name in names}


def _fault(value: Any, hint: Any, opt: Opt | None) -> str | None:
    """What is wrong with a value for an option of a type."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if value is None and NoneType in kinds:
        return None
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    if choices:
        return None if value in choices else f"not one of {', '.join(map(repr, choices))}"
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if int in kinds and not (is_number and isinstance(value, Integral)):
        return "not a whole number"
    if float in kinds and not is_number:
        return "not a number"
    if bool in kinds and not isinstance(value, bool):
        return "neither True nor False"
    if str in kinds and not isinstance(value, str):
        return "not a text"
    if is_number and opt is not None:
        if opt.min is not None and value < opt.min:
            return f"below {opt.min:g}"
        if opt.max is not None and value > opt.max:
            return f"above {opt.max:g}"
    return None
