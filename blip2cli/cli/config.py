"""--config FILE: options by name from a TOML file; options on the command line take precedence."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from blip2cli.cli.values import WrongValue
from blip2cli.errors import reason

OWN = ("config", "debug", "help")
"""Options that a file cannot set."""


def take_defaults(context: typer.Context, file: Path | None) -> Path | None:
    """Make the file's values the defaults of the command that is being parsed. Raises WrongValue.

    Options outside of a table are for every command; those of a table `[caption]` are for that command, and take
    precedence.
    """
    if file is None or context.resilient_parsing:
        return file
    options = _read(file)
    parameters = _by_name(context)
    shared = {name: value for name, value in options.items() if not isinstance(value, dict)}
    own_options = options.get(context.command.name or "", {})
    values: dict[str, Any] = {}
    for name, value in {**shared, **own_options}.items():
        option = name.replace("-", "_")
        if option not in parameters:
            near = difflib.get_close_matches(option, list(parameters), 1)
            meant = f"; did you mean {near[0].replace('_', '-')}?" if near else ""
            raise WrongValue(
                f"{file}: {context.command.name} has no option {name}{meant}",
                f"blip2 {context.command.name} --help lists them.",
            )
        if getattr(parameters[option], "is_flag", False) and not isinstance(value, bool):
            raise WrongValue(f"{file}: {name} is true or false, not {value}", "Write it without quotation marks.")
        several = getattr(parameters[option], "multiple", False) or parameters[option].nargs == -1
        values[parameters[option].name] = [value] if several and not isinstance(value, list) else value
    context.default_map = values
    return file


def _by_name(context: typer.Context) -> dict[str, Any]:
    """The command's options and arguments, by all names that they have when typed."""
    parameters: dict[str, Any] = {}
    for parameter in context.command.params:
        if parameter.name not in OWN:
            flags = [flag[2:].replace("-", "_") for flag in parameter.opts if flag.startswith("--")]
            parameters |= dict.fromkeys([str(parameter.name), *flags], parameter)
    return parameters


def _read(file: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise WrongValue(f"cannot read {file}: {reason(error)}", "Give a TOML file.") from None
    except ValueError as error:  # not UTF-8, or not TOML
        raise WrongValue(
            f"{file} is not TOML: {error}", "Write options as NAME = VALUE, texts in quotation marks."
        ) from None


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="TOML file with options by name, and inputs; options on the command line take precedence.",
        callback=take_defaults,
        is_eager=True,
        rich_help_panel="Input",
        show_default=False,
    ),
]
