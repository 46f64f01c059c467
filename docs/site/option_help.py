"""Tells mkdocstrings what the fields of the settings records mean: the help that stands in their annotations."""

from importlib import import_module
from typing import Any, get_args, get_type_hints

from griffe import Attribute, Class, Docstring, Expr, ExprSubscript, ExprTuple, Extension

from blip2cli.settings import Opt


class OptionHelp(Extension):
    """Gives every field annotated `Annotated[type, Opt(help, ...)]` its help as docstring, and leaves it the type."""

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        if not any("Opt(" in str(field.annotation) for field in cls.attributes.values()):
            return
        hints = get_type_hints(getattr(import_module(cls.module.path), cls.name), include_extras=True)
        for name, field in cls.attributes.items():
            option = next((told for told in get_args(hints.get(name)) if isinstance(told, Opt)), None)
            if option is not None:
                field.docstring = Docstring(option.help, parent=field)
                field.annotation = _type(field, get_args(hints[name])[0])


def _type(field: Attribute, kind: Any) -> Expr | str | None:
    """The first of what stands in the brackets of Annotated, which may have a name of its own."""
    annotation = field.annotation
    if isinstance(annotation, ExprSubscript) and isinstance(annotation.slice, ExprTuple):
        return annotation.slice.elements[0]
    return kind.__name__ if isinstance(kind, type) else annotation
