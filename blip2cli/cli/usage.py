"""The help of commands: the types of options are told where they say something."""

from __future__ import annotations

from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup


class _Plain:
    """Leaves out what Typer would say of flags, `<bool>`, and of arguments, `<list[str]>`."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]  # of the class that this is mixed into
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
            elif isinstance(param, TyperArgument):
                param.display_type_rich = lambda ctx: None  # type: ignore[method-assign]  # there is no option for it
        return params


class PlainCommand(_Plain, TyperCommand):
    """A subcommand."""


class PlainGroup(_Plain, TyperGroup):
    """The command above them."""
