"""The two ways of a conversation: on a terminal, and through pipes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from blip2cli.errors import Terminated
from blip2cli.host.terminal.progress import tell
from blip2cli.host.terminal.tables import print_records
from blip2cli.host.terminal.text import printable


class ChatTerminal:
    """A conversation on a terminal: lines can be edited if stdin is one too; answers are
    shown as they are written."""

    scripted = False

    def __init__(self) -> None:
        self.typed = sys.stdin.isatty()
        if self.typed:
            _edit_lines()

    def lines(self) -> Iterator[str]:
        """The lines that are typed, until Ctrl-D, or those of the script; Ctrl-C drops
        the current line."""
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
    """A conversation whose questions come from stdin, and whose answers go to stdout as
    JSON lines."""

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
            tell(f"blip2: {line}")


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
