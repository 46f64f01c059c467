"""Texts that may be shown on a terminal, whatever an image, a file or a model is called or says."""

from __future__ import annotations

import json


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


def tail(name: str, width: int) -> str:
    """A long path, cut to its end, in which files differ."""
    width = max(width, 8)
    return name if len(name) <= width else "…" + name[-(width - 1) :]
