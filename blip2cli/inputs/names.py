"""Names of inputs: how they are printed, and the ranges that they may hold."""

from __future__ import annotations

import os
import re

from blip2cli.errors import UsageError

RANGE = re.compile(r"\{(?:(\d{1,18})\.\.(\d{1,18})|([^{},]*(?:,[^{},]*)+))\}")
"""{00000..00099} or {a,b} in a name."""

MAX_NAMES = 1_000_000
"""Names that a range may stand for."""

ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
"""A byte that is not UTF-8 in a path that is printed."""


def escaped(path: str) -> str:
    """The path with bytes that are not UTF-8 written as backslash escapes, so that every output can hold it."""
    try:
        return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can hold
        return path.encode("utf-8", "backslashreplace").decode()


def is_unicode(text: str) -> bool:
    """Whether text has no halves of surrogate pairs, which JSON and names of files can hold, and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def unescaped(path: str) -> str:
    """The path with backslash escapes, as `escaped` writes them, turned back into bytes."""
    encoded = path.encode("utf-8", "surrogateescape")
    return os.fsdecode(ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), encoded))


def existing_spelling(path: str) -> str:
    """The path of the file that a printed path stands for: as it is, or with its backslash escapes as bytes."""
    if not ESCAPED.search(path.encode("utf-8", "surrogatepass")) or os.path.lexists(path):
        return path
    try:
        original = unescaped(path)
    except UnicodeEncodeError:  # half a surrogate pair, which no file's name has
        return path
    return original if os.path.lexists(original) else path


def has_range(name: str) -> bool:
    """Whether a name holds a range such as {00000..00099} or {a,b}."""
    return RANGE.search(name) is not None


def expanded(name: str) -> list[str]:
    """The names that a pattern with {00000..00099} or {a,b} stands for, as WebDataset has it. Raises UsageError."""
    match = RANGE.search(name)
    if match is None:
        return [name]
    words = match[3].split(",") if match[3] is not None else _numbers(match[1], match[2])
    starts = [f"{name[: match.start()]}{word}" for word in words]
    ends = expanded(name[match.end() :])
    if len(starts) * len(ends) > MAX_NAMES:
        raise _too_many(name)
    return [start + end for start in starts for end in ends]


def _numbers(first: str, last: str) -> list[str]:
    """The numbers from the first to the last, with leading zeros where the first has them.

    As in a shell, they go down if the last is the smaller one.
    """
    start, end = int(first), int(last)
    if abs(end - start) >= MAX_NAMES:
        raise _too_many(f"{{{first}..{last}}}")
    width = len(first) if first.startswith("0") else 0
    numbers = range(start, end + 1) if start <= end else range(start, end - 1, -1)
    return [str(number).zfill(width) for number in numbers]


def _too_many(name: str) -> UsageError:
    return UsageError(f"{name} matches more than {MAX_NAMES:,} names", "Give fewer at a time.")
