"""What a command prints on stdout: tables, lines under headings, records."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from blip2cli.host.terminal.streams import unguarded
from blip2cli.host.terminal.text import escaped, printable, tail, width_of, wrapped

if TYPE_CHECKING:
    from rich.text import Text

GAP = 2
"""Columns of the terminal between two of a table."""

NUMBER = 9
"""Columns that a number takes at most, such as -0.000136."""

NARROWEST = 8
"""Columns that a text has at least."""


def show_plan(plan: Sequence[tuple[str, str]]) -> None:
    """The lines of --dry-run on stdout, each with its heading."""
    width = max(len(heading) for heading, _ in plan)
    for heading, line in plan:
        text = f"{printable(heading):<{width}}  {printable(line)}"
        print("\n".join(wrapped(text, shutil.get_terminal_size().columns, width + 2)) if sys.stdout.isatty() else text)


def show_table(headings: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str] = ()) -> None:
    """A complete table on stdout, each column as wide as it needs; numbers are aligned
    right.

    If the terminal is too narrow, the `spare` columns are left out, in their order.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    widths = {
        heading: max(map(width_of, column)) + GAP for heading, *column in zip(headings, headings, *rows, strict=True)
    }
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
    begins = 8 + 18
    first, *others = wrapped(" " * begins + printable(text), console.width, begins)
    line = Text.assemble((f"{state:<8}", style), (f"{printable(name):<18}", "bold"), first[begins:])
    console.print(line, *others, sep="\n", soft_wrap=True, markup=False)
    if hint:
        console.print(Text(" " * begins + printable(hint), style="dim"), soft_wrap=True)


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
    """Rows under a heading, printed as they come on stdout, in columns as wide as what has come so far.

    If a line has no room for all of it, the widest columns share what the others leave. Names in the first column are
    cut to their end, other texts are wrapped between words, and numbers are aligned on the right.
    """

    def __init__(self, names: Sequence[str], numbers: Collection[str] = ()) -> None:
        """`numbers` are those of the names whose columns hold numbers."""
        from rich.console import Console

        self.console = Console(highlight=False)
        self.names = [printable(name) for name in names]
        self.number = [name in numbers for name in names]
        self.widest = [
            max(width_of(name), NUMBER if number else 0) for name, number in zip(self.names, self.number, strict=True)
        ]
        self.headed = False

    def print_rows(self, rows: Sequence[tuple[Sequence[str], str | None]]) -> None:
        """Print rows above the progress line: cells, and an error that takes the place of those that are empty."""
        from rich.text import Text
        from tqdm import tqdm

        shown = [([printable(cell) for cell in cells], error) for cells, error in rows]
        for cells, _ in shown:
            self.widest = [max(width, width_of(cell)) for width, cell in zip(self.widest, cells, strict=True)]
        widths = shared(self.widest, self.number, self.console.width)
        with tqdm.external_write_mode(unguarded()):
            if not self.headed:
                self._print(widths, [Text(name, style="bold") for name in self.names])
                self.headed = True
            for cells, error in shown:
                if error is None:
                    self._print(widths, [_name(cells[0], widths[0]), *map(Text, cells[1:])])
                else:
                    self._print_error(widths, cells[: _error_at(cells)], f"error: {printable(error)}")

    def _print_error(self, widths: Sequence[int], cells: Sequence[str], error: str) -> None:
        """Print an error behind the cells of its row, which leave it room."""
        from rich.text import Text

        widths = widths[: len(cells)]
        if sum(widths) + GAP * len(widths) + width_of(error) + GAP > self.console.width:
            texts = [False] * (len(cells) + 1)
            *widths, _ = shared([*map(width_of, cells), width_of(error)], texts, self.console.width)
        line = [_name(cells[0], widths[0]), *map(Text, cells[1:]), Text(error, style="red")]
        self._print([*widths, None], line)

    def _print(self, widths: Sequence[int | None], cells: Sequence[Any]) -> None:
        from rich.table import Table

        table = Table(box=None, show_header=False, padding=(0, GAP, 0, 0))
        for width, number in zip(widths, self.number, strict=False):
            right = number and width is not None
            table.add_column(width=width, overflow="fold", justify="right" if right else "left")
        table.add_row(*cells)
        self.console.print(table)


def _name(name: str, width: int) -> Text:
    """A name in the first column."""
    from rich.text import Text

    return Text(tail(name, width), style="cyan", no_wrap=True)


def _error_at(cells: Sequence[str]) -> int:
    """The column in which an error is shown: the first after which all are empty, or the last; never that of names."""
    at = len(cells)
    while at > 1 and not cells[at - 1]:
        at -= 1
    return min(at, len(cells) - 1)


def shared(wanted: Sequence[int], number: Sequence[bool], width: int) -> list[int]:
    """Widths of columns in a line of that width: numbers have what they want, and the widest texts share the rest."""
    widths = list(wanted)
    room = width - GAP * len(wanted) - sum(one for one, is_number in zip(wanted, number, strict=True) if is_number)
    wide = [at for at, is_number in enumerate(number) if not is_number]
    while wide:
        share = max(room // len(wide), NARROWEST)
        fitting = [at for at in wide if wanted[at] <= share]
        if not fitting:
            for at in wide:
                widths[at] = share
            return widths
        room -= sum(wanted[at] for at in fitting)
        wide = [at for at in wide if at not in fitting]
    return widths
