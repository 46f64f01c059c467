"""What a command prints on stdout: tables, lines under headings, records."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from blip2cli.host.terminal.streams import unguarded
from blip2cli.host.terminal.text import escaped, printable, tail


def show_plan(plan: Sequence[tuple[str, str]]) -> None:
    """The lines of --dry-run on stdout, each with its heading."""
    width = max(len(heading) for heading, _ in plan)
    for heading, line in plan:
        print(f"{printable(heading):<{width}}  {printable(line)}")


def show_table(headings: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str] = ()) -> None:
    """A complete table on stdout, each column as wide as it needs; numbers are aligned
    right.

    If the terminal is too narrow, the `spare` columns are left out, in their order.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    widths = {heading: max(map(len, column)) + 2 for heading, *column in zip(headings, headings, *rows, strict=True)}
    left_out: set[str] = set()
    for heading in spare:
        if sum(width for name, width in widths.items() if name not in left_out) > console.width:
            left_out.add(heading)
    shown = [at for at, heading in enumerate(headings) if heading not in left_out]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for at in shown:
        number = all(row[at][:1].isdigit() or not row[at] for row in rows)
        style = "cyan" if at == 0 else ""
        table.add_column(
            Text(printable(headings[at])), overflow="fold", justify="right" if number else "left", style=style
        )
    for row in rows:
        table.add_row(*(Text(printable(row[at])) for at in shown))
    console.print(table)


def show_check(name: str, state: str, text: str, hint: str) -> None:
    """A line of the doctor on stdout, with its hint below it."""
    from rich.console import Console
    from rich.text import Text

    console, style = Console(highlight=False), {"ok": "green", "note": "yellow", "problem": "bold red"}[state]
    line = Text.assemble((f"{state:<8}", style), (f"{printable(name):<18}", "bold"), printable(text))
    console.print(line, soft_wrap=True)
    if hint:
        console.print(Text(" " * 26 + printable(hint), style="dim"), soft_wrap=True)


def show_figures(title: str, names: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> None:
    """A table on stdout: a name for each row, and figures on the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    for name in names:
        table.add_column(Text(printable(name)), justify="right", overflow="fold")
    for name, figures in rows:
        table.add_row(Text(printable(name), style="cyan"), *(Text(printable(figure)) for figure in figures))
    console = Console(highlight=False)
    console.print(Text(printable(title)), "", table, sep="\n")


def print_records(records: Iterable[dict[str, Any]]) -> None:
    """JSON lines on stdout."""
    for record in records:
        line = json.dumps(record, ensure_ascii=False)
        line = (escaped(line) if sys.stdout.isatty() else line) + "\n"
        sys.stdout.buffer.write(line.encode("utf-8", "backslashreplace"))  # half a surrogate pair is not a text
        sys.stdout.buffer.flush()


class TablePrinter:
    """Rows under a heading, in columns of fixed width, printed one by one on stdout.

    Columns in `widths` have that width; the others share the rest.
    """

    def __init__(self, names: Sequence[str], widths: Mapping[str, int] = MappingProxyType({})) -> None:
        from rich.console import Console

        self.console = Console(highlight=False)
        self.names = list(names)
        self.widths = [widths.get(name) for name in names]
        self.headed = False

    def print_row(self, cells: Sequence[str], error: str | None) -> None:
        """Print one row above the progress line; an error replaces the task's last
        columns."""
        from rich.text import Text
        from tqdm import tqdm

        name, *values = map(printable, cells)
        widths = list(self.widths)
        if error is not None:
            at = self._error_at()
            values[at - 1 :] = [printable(error)]
            widths[at:] = [None if widths[at] is None else sum(width + 2 for width in widths[at:] if width) - 2]
        style = "red" if error is not None else ""
        first = Text(tail(name, self._first_width()), style="cyan", no_wrap=True)
        with tqdm.external_write_mode(unguarded()):
            if not self.headed:
                self._print(self.widths, [Text(printable(name), style="bold") for name in self.names])
                self.headed = True
            self._print(widths, [first, *(Text(value, style=style) for value in values)])

    def _print(self, widths: Sequence[int | None], cells: Sequence[Any]) -> None:
        from rich.table import Table

        table = Table(box=None, show_header=False, expand=True, padding=(0, 2, 0, 0))
        for at, width in enumerate(widths):
            table.add_column(width=width, ratio=None if width else 2 if at == 0 else 3, overflow="fold")
        table.add_row(*cells)
        self.console.print(table)

    def _error_at(self) -> int:
        """The place of errors: the last column, or all the narrow columns at the end."""
        at = len(self.widths) - 1
        while self.widths[at] is not None and self.widths[at - 1] is not None:
            at -= 1
        return at

    def _first_width(self) -> int:
        narrow = [width + 2 for width in self.widths if width is not None]
        shares = 3 * (len(self.widths) - len(narrow)) - 1
        return (self.console.width - sum(narrow)) * 2 // shares - 2
