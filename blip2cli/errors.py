"""The exceptions whose message a user sees, in two lines: what is wrong, and what to do."""

from blip2cli.records import ErrorKind, RowError

LONGEST_REASON = 160
"""Characters of a foreign exception's words that are shown."""


class Blip2Error(Exception):
    """The run cannot continue.

    Args:
        message: what is wrong, in one line.
        hint: what to do about it, in one line; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(Blip2Error):
    """The command line, an input or an output is wrong; raised before any model is loaded."""


class CheckpointError(Blip2Error):
    """The checkpoint cannot be found, read or run."""


class OutputError(Blip2Error):
    """The output can no longer be written (full disk, lost permission, closed pipe)."""


class ImageError(Exception):
    """One image cannot be used; `error`, a kind and a few words more, is that of its row."""

    def __init__(self, kind: ErrorKind, detail: str) -> None:
        self.error = RowError(kind, detail)
        super().__init__(str(self.error))


def reason(error: BaseException, named: bool = False) -> str:
    """What a foreign exception says, in one short line: the system's words, or its message, or else its name.

    With `named` its class stands before its message, for exceptions that are not the system's or a known library's.
    """
    name, message = type(error).__name__, str(error)
    if named:
        return one_line(f"{name}: {message}") if message else name
    if isinstance(error, OSError) and error.strerror:
        message = str(error.strerror)
    return one_line(message) or name


def one_line(text: str, longest: int = LONGEST_REASON) -> str:
    """A text that others wrote, as one short line without control characters."""
    words = " ".join(text.split())
    short = words if len(words) <= longest else f"{words[: longest - 3]}..."
    return "".join(letter if letter.isprintable() else "?" for letter in short)


class Interrupted(KeyboardInterrupt):
    """A run was stopped by Ctrl-C or SIGTERM and has committed what it computed; `kept` says how much that is, and
    `hint` how to go on."""

    def __init__(self, kept: str, hint: str = "run the same command with --resume to continue") -> None:
        super().__init__(kept)
        self.kept = kept
        self.hint = hint


class Terminated(KeyboardInterrupt):
    """SIGTERM has come. What Ctrl-C interrupts without ending the program, such as an answer in a chat, ends too."""
