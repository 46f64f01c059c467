"""What a user sees: progress and messages on stderr, tables on stdout. Only this module uses rich and tqdm."""

from __future__ import annotations

import json
import logging as stdlib_logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from types import MappingProxyType
from typing import Any

from blip2cli.errors import Terminated

PLAIN_EVERY = 10.0
"""Seconds between progress lines if stderr is not a terminal."""

_bars: list[Any] = []
"""The redrawn line of progress, while it is shown."""


class Progress:
    """Images done, images a second, errors and time left: one redrawn line on a terminal, else a line now and then.

    The clock starts with the first images, because the time to load a model or start a cluster says nothing about
    the rest.
    """

    def __init__(self, total: int | None, done: int, quiet: bool) -> None:
        self.total, self.done, self.quiet, self.errors = total, done, quiet, 0
        self.shown = time.monotonic()
        self.first, self.began = done, 0.0
        self.bar: Any = None
        if not quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(
                total=total, initial=done, unit=" images", dynamic_ncols=True, file=_unguarded(), leave=False
            )
            _bars.append(self.bar)

    def advance(self, rows: int, errors: int) -> None:
        """Count more finished rows, and those of them with errors."""
        self.done += rows
        self.errors += errors
        first = not self.began
        if first:
            self.first, self.began = self.done, time.monotonic()
        if self.bar is not None:
            if errors:
                self.bar.set_postfix_str(f"{self.errors} errors", refresh=False)
            if first:
                self.bar.initial = self.bar.n = self.bar.last_print_n = self.done
                self.bar.unpause()
                self.bar.refresh()
            else:
                self.bar.update(rows)
        elif not self.quiet and time.monotonic() - self.shown >= PLAIN_EVERY:
            self.shown = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Remove the redrawn line."""
        if self.bar is not None:
            self.bar.close()
            _bars.clear()

    def _line(self) -> str:
        rate = (self.done - self.first) / max(time.monotonic() - self.began, 1e-9)
        of = f" of {self.total:,}" if self.total is not None else ""
        speed = f" {rate:.1f} images/s," if rate else ""
        time_left = f", {clock((self.total - self.done) / rate)} left" if self.total is not None and rate else ""
        return f"{self.done:,}{of} images,{speed} {self.errors:,} errors{time_left}"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, seconds_left = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds_left:02}" if hours else f"{minutes}:{seconds_left:02}"


def show_summary(summary: dict[str, Any]) -> None:
    """The closing lines on stderr."""
    phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in summary["phases"].items() if seconds >= 0.05)
    where = f" to {summary['out']}" if summary["out"] else ""
    earlier = f", {summary['resumed_at']:,} before" if summary["resumed_at"] else ""
    earlier += f" ({summary['errors_before']:,} with errors)" if summary["errors_before"] else ""
    left_out = f"{summary['left_out']:,} left out, " if summary["left_out"] else ""
    rows = "row" if summary["rows"] == 1 else "rows"
    _tell(
        f"{summary['rows']:,} {rows}{where}{earlier}, {left_out}{summary['errors']:,} with errors, "
        f"in {summary['seconds']:.1f} s "
        f"({summary['images_per_second']:.1f} images/s{'; seconds: ' + phases if phases else ''})"
    )
    for kind, count in Counter(summary["errors_by_kind"]).most_common():
        _tell(f"  {count:,} {kind}")


def show_report(out: Any, written: Any) -> None:
    """The content of a report: a line on stderr, and another for what was left out."""
    rows = "row" if written.rows == 1 else "rows"
    _tell(
        f"{out}: {written.rows:,} {rows}, {written.errors:,} with errors, {written.thumbnails:,} with thumbnails, "
        f"{written.size / 1e6:.1f} MB"
    )
    for line in written.left_out:
        _tell(f"  {line}")


def show_plan(plan: Sequence[tuple[str, str]]) -> None:
    """The lines of --dry-run on stdout, each with its heading."""
    width = max(len(heading) for heading, _ in plan)
    for heading, line in plan:
        print(f"{printable(heading):<{width}}  {printable(line)}")


def show_table(headings: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str] = ()) -> None:
    """A complete table on stdout, each column as wide as it needs; numbers are aligned right.

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


def print_records(records: Iterable[dict[str, Any]]) -> None:
    """JSON lines on stdout."""
    for record in records:
        line = json.dumps(record, ensure_ascii=False)
        line = (escaped(line) if sys.stdout.isatty() else line) + "\n"
        sys.stdout.buffer.write(line.encode("utf-8", "backslashreplace"))  # half a surrogate pair is not a text
        sys.stdout.buffer.flush()


class ChatTerminal:
    """A conversation on a terminal: lines can be edited if stdin is one too; answers are shown as they are
    written."""

    scripted = False

    def __init__(self) -> None:
        self.typed = sys.stdin.isatty()
        if self.typed:
            _edit_lines()

    def lines(self) -> Iterator[str]:
        """The lines that are typed, until Ctrl-D, or those of the script; Ctrl-C drops the current line."""
        if not self.typed:
            for line in _piped_lines():
                print(f"> {printable(line)}")
                yield line
            return
        while True:
            try:
                line = input("> ").strip()
            except EOFError:
                print()
                return
            except Terminated:
                print()
                raise
            except KeyboardInterrupt:
                print()
                continue
            if line:
                yield line

    def piece(self, text: str) -> None:
        print(printable(text), end="", flush=True)

    def answered(self, image: str, question: str, answer: str) -> None:
        print("" if answer else "(no answer)")

    def failed(self, image: str, question: str, error: str) -> None:
        print(printable(error))

    def interrupted(self) -> None:
        print(" (stopped)")

    def told(self, lines: Iterable[str]) -> None:
        for line in lines:
            print(printable(line))


class ChatPipe:
    """A conversation whose questions come from stdin, and whose answers go to stdout as JSON lines."""

    scripted = True

    def lines(self) -> Iterator[str]:
        return _piped_lines()

    def piece(self, text: str) -> None:
        """Only complete answers are written."""

    def answered(self, image: str, question: str, answer: str) -> None:
        print_records([{"image": image, "question": question, "answer": answer, "error": None}])

    def failed(self, image: str, question: str, error: str) -> None:
        print_records([{"image": image, "question": question, "answer": None, "error": error}])

    def interrupted(self) -> None:
        raise KeyboardInterrupt

    def told(self, lines: Iterable[str]) -> None:
        for line in lines:
            _tell(f"blip2: {line}")


def chat_screen() -> ChatTerminal | ChatPipe:
    """A terminal, if stdout is one."""
    return ChatTerminal() if sys.stdout.isatty() else ChatPipe()


def _piped_lines() -> Iterator[str]:
    """The lines on stdin that are not blank."""
    for line in sys.stdin.buffer:
        if text := line.decode("utf-8", "backslashreplace").strip():
            yield text


def _edit_lines() -> None:
    """Arrow keys, earlier lines, and Tab for paths, if this Python has readline."""
    try:
        import readline
    except ImportError:  # Windows
        return
    readline.set_completer_delims(" \t\n")
    readline.parse_and_bind("bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete")


def show_error(message: str, hint: str) -> None:
    """What is wrong, and what to do: two lines on stderr."""
    _tell(f"blip2: {message}")
    if hint:
        _tell(f"       {hint}")


def show_note(message: str) -> None:
    """One line on stderr that says what was done."""
    _tell(message)


def show_warning(message: str) -> None:
    """One line on stderr."""
    _tell(f"blip2: warning: {message}")


def _tell(line: str) -> None:
    """One line on stderr, escaped, above the progress line if it is shown."""
    if _bars:
        _bars[-1].write(printable(line), file=_unguarded())
    else:
        print(printable(line), file=sys.stderr)


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
        """Print one row above the progress line; an error replaces the task's last columns."""
        from rich.text import Text
        from tqdm import tqdm

        name, *values = map(printable, cells)
        widths = list(self.widths)
        if error is not None:
            at = self._error_at()
            values[at - 1 :] = [printable(error)]
            widths[at:] = [None if widths[at] is None else sum(width + 2 for width in widths[at:] if width) - 2]
        style = "red" if error is not None else ""
        first = Text(_tail(name, self._first_width()), style="cyan", no_wrap=True)
        with tqdm.external_write_mode(_unguarded()):
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


def printable(text: str) -> str:
    """A text on one line, without the control characters with which a name or a caption could control a terminal.

    Those that change the direction of writing, and halves of surrogate pairs, are also replaced by a space.
    """
    return "".join(char if char.isprintable() else " " for char in text)


def escaped(text: str) -> str:
    """A text in which what is not printable is written as JSON and Python both do (\\u001b), but for ends of lines."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


class GuardedStream:
    """A text stream that escapes what could control a terminal: tracebacks, logs and warnings of libraries."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(escaped(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def guard_streams() -> None:
    """Make stderr safe to write to, and open a substitute for a closed standard stream, before a file takes its number.

    If stdout is closed, writing to it fails as on a full disk.
    """
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # it takes the lowest free number
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = TextIOWrapper(open(1, "wb", 0, closefd=False), write_through=True)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    if not isinstance(sys.stderr, GuardedStream):
        sys.stderr = GuardedStream(sys.stderr)


def _unguarded() -> Any:
    """The stream of stderr itself, for what moves the cursor."""
    return sys.stderr.stream if isinstance(sys.stderr, GuardedStream) else sys.stderr


@contextmanager
def silent_libraries() -> Iterator[None]:
    """While inside, discard what native code writes to stderr."""
    try:
        saved_stderr = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(saved_stderr, 2)
        os.close(saved_stderr)


def _tail(name: str, width: int) -> str:
    """A long path, cut to its end, in which files differ."""
    width = max(width, 8)
    return name if len(name) <= width else "…" + name[-(width - 1) :]


def hush_libraries() -> None:
    """No progress bars and no advice from transformers and the hub: this program alone writes to stderr."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    stdlib_logging.getLogger("huggingface_hub").setLevel(stdlib_logging.CRITICAL)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
