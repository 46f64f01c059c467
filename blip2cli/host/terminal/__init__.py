"""What a user sees: progress and messages on stderr, tables on stdout. Only this room uses rich and tqdm."""

from blip2cli.host.terminal.chat import ChatPipe, ChatTerminal, chat_screen
from blip2cli.host.terminal.libraries import hush_libraries, silent_libraries, weights_counted
from blip2cli.host.terminal.messages import show_error, show_note, show_summary, show_warning
from blip2cli.host.terminal.progress import Progress, clock, counted, loading, remove_progress
from blip2cli.host.terminal.streams import GuardedStream, guard_streams
from blip2cli.host.terminal.tables import (
    TablePrinter,
    print_records,
    show_check,
    show_figures,
    show_plan,
    show_table,
)
from blip2cli.host.terminal.text import escaped, figure, printable

__all__ = [
    "ChatPipe",
    "ChatTerminal",
    "GuardedStream",
    "Progress",
    "TablePrinter",
    "chat_screen",
    "clock",
    "counted",
    "escaped",
    "figure",
    "guard_streams",
    "hush_libraries",
    "loading",
    "print_records",
    "printable",
    "remove_progress",
    "show_check",
    "show_error",
    "show_figures",
    "show_note",
    "show_plan",
    "show_summary",
    "show_table",
    "show_warning",
    "silent_libraries",
    "weights_counted",
]
