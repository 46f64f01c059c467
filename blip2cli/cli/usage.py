"""The help of commands, with the types of options only where they are useful."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup

from blip2cli.cli.failures import MISTYPED


class _Plain:
    """Leaves out the types that Typer shows for flags, `<bool>`, and for arguments, `<list[str]>`."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]  # of the class that this is mixed into
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
            elif isinstance(param, TyperArgument):
                param.get_usage_pieces = partial(_as_named, param.metavar or "")  # type: ignore[method-assign]
                param.display_type_rich = lambda ctx: None  # type: ignore[method-assign]  # there is no option for it
        return params


def _as_named(metavar: str, ctx: Any) -> list[str]:
    """An argument in the usage line, without the brackets and dots that Typer adds."""
    return [metavar]


class PlainCommand(_Plain, TyperCommand):
    """A subcommand."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments that are left; an error of the options' parser also says which command's they are."""
        try:
            return super().parse_args(ctx, args)
        except MISTYPED as error:
            error.ctx = error.ctx or ctx  # type: ignore[attr-defined]  # Typer has no public name for this class
            raise


class ListedCommand(PlainCommand):
    """A subcommand as the help lists it: its name and summary. The command itself is made when it is used."""

    def __init__(self, name: str, summary: str, make: Callable[[str], TyperCommand]) -> None:
        super().__init__(name, help=summary)
        self._make = make

    @cached_property
    def whole(self) -> TyperCommand:
        """The command with its function and options."""
        return self._make(str(self.name))

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        """A context of the whole command, which then takes this one's place."""
        return self.whole.make_context(info_name, args, parent, **extra)

    def get_params(self, ctx: Any) -> list[Any]:
        return self.whole.get_params(ctx)


class PlainGroup(_Plain, TyperGroup):
    """The command above them."""
