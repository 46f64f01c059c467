"""The command-line reference as Markdown, made from the app.

`python -m blip2cli.cli.reference > docs/cli.md` writes it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, get_args

from typer.models import OptionInfo

from blip2cli.cli import COMMANDS, function_of
from blip2cli.cli.options import REQUIRED
from blip2cli.cli.values import Value

TOP = """\
<!-- Made by `python -m blip2cli.cli.reference`; a test compares. -->
# The command line

How-tos: [caption](caption.md), [vqa](vqa.md), [embed](embed.md). What goes in: [inputs](inputs.md); what comes out, and
the exit codes: [outputs](outputs.md); checkpoints and precision: [models](models.md).

| `blip2 ...` | what it does |
|---|---|
"""

FLAGS = """
| option | what it does |
|---|---|
| `--version` | Show the version. |
| `--install-completion` | Install completion for the current shell. |
| `--show-completion` | Print the completion script of the current shell. |
| `--help`, `-h` | Show help; of every command too. |
"""


def reference() -> str:
    """The whole page."""
    table = "".join(f"| [`{name}`](#blip2-{name}) | {summary} |\n" for name, summary in COMMANDS.items())
    return TOP + table + FLAGS + "".join(_section(name, function_of(name)) for name in COMMANDS)


def _section(name: str, call: Callable[..., Any]) -> str:
    summary, example = _doc(call)
    signature = inspect.signature(call, eval_str=True)
    parameters = [(p, *get_args(p.annotation)[1:]) for p in signature.parameters.values()]
    options = [(p, *marks) for p, *marks in parameters if isinstance(marks[0], OptionInfo)]
    arguments = [marks[0] for _, *marks in parameters if not isinstance(marks[0], OptionInfo)]
    usage = " ".join(["blip2", name, "[OPTIONS]", *(str(info.metavar) for info in arguments)])
    parts = [f"\n## blip2 {name}\n\n{summary}\n\n    {usage}\n    {example}\n\n"]
    parts += [f"`{info.metavar}`: {_plain(info.help)}\n" for info in arguments]
    for panel in dict.fromkeys(info.rich_help_panel for _, info, _ in options):
        rows = [_row(p, info, value) for p, info, value in options if info.rich_help_panel == panel]
        parts.append(
            f"\n### {panel or 'Options'}\n\n| option | default | what it does |\n|---|---|---|\n{''.join(rows)}"
        )
    return "".join(parts)


def _row(parameter: inspect.Parameter, info: OptionInfo, value: Value) -> str:
    names = (info.default, *(info.param_decls or ()))  # in Annotated, Typer keeps the first name as the default
    flags = ", ".join(f"`{name}`" for name in names if isinstance(name, str))
    words = " ".join(filter(None, [flags, _shown(value)]))
    text, _, default_text = _plain(info.help).partition(" [default: ")
    default = default_text.removesuffix("]")
    if parameter.default is REQUIRED:
        default = "required"
    elif not default and parameter.default not in (None, "") and parameter.default is not False:
        default = f"`{parameter.default}`"
    variable = f" Environment variable: `{info.envvar}`." if info.envvar else ""
    cells = (words, default, text + variable)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _shown(value: Value) -> str:
    """The metavar of the option; empty for a flag."""
    if value.kind is bool:
        return ""
    text = " or ".join(f"`{choice}`" for choice in value.choices) or f"`{value.metavar}`"
    return " ".join(filter(None, [text, value.bounds]))


def _doc(call: Callable[..., Any]) -> tuple[str, str]:
    """The first paragraph of the help, and the example after it."""
    summary, _, example = inspect.cleandoc(call.__doc__ or "").partition("\n\n")
    return " ".join(summary.split()), _plain(example.strip())


def _plain(text: str | None) -> str:
    """Help text without rich's markup."""
    return re.sub(r"\[/?bold\]", "", text or "").replace("\\[", "[")


if __name__ == "__main__":
    print(reference(), end="")
