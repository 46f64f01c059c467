"""The one family of exceptions whose message a user sees, in two lines: what is wrong, and what to do."""


class Blip2Error(Exception):
    """The run cannot go on.

    Args:
        message: what is wrong, in one line.
        hint: what to do about it, in one line; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(Blip2Error):
    """The command line, an input or an output is not as it must be; known before any model is loaded."""


class CheckpointError(Blip2Error):
    """The checkpoint cannot be found, read or run."""


class OutputError(Blip2Error):
    """The output cannot be written any further (full disk, lost permission, closed pipe)."""


class ImageError(Exception):
    """One image cannot be used; becomes the `error` of its row.

    Args:
        kind: one of the kinds the closing summary counts by: missing, empty, unreadable, unsupported, truncated,
            too-large.
        detail: a few words more.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
