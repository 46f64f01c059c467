"""Texts that may be shown on a terminal, whatever an image, a file or a model is called or says."""

from __future__ import annotations

import json

GLUE = "\u00a0"
"""Between two words that are not parted at the end of a line; it is shown as a space."""


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
    if width_of(name) <= width:
        return name
    kept = name[-(width - 1) :]
    while width_of(kept) > width - 1:
        kept = kept[1:]
    return f"…{kept}"


def width_of(text: str) -> int:
    """Columns of a terminal that a text takes; some letters and most emoji take two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    """A text in lines of at most that many columns, broken between words; all but the first are indented.

    A word that is longer than a line is left whole, where it stands. Words with GLUE between them are one.
    """
    begins = text[: len(text) - len(text.lstrip(" "))]
    first, *words = text.lstrip(" ").split(" ")
    lines, line = [], begins + first
    for word in words:
        if width_of(f"{line} {word}") > width >= indent + width_of(word):
            lines.append(line)
            line = " " * indent + word
        else:
            line = f"{line} {word}"
    return [done.replace(GLUE, " ") for done in (*lines, line)]


def figure(number: float) -> str:
    """A number with three digits, or as many as stand before its point."""
    if abs(number) >= 1000:
        return f"{number:,.0f}"
    return f"{number:.3g}"
