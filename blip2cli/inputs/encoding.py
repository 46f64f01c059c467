"""The encoding of text: what its first bytes say or the user says, else UTF-8. It is checked, never guessed."""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from blip2cli.errors import UsageError, reason
from blip2cli.host import storage

MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""The byte-order marks that say what follows."""

HEAD = 4
"""Bytes that tell one form of Unicode from another."""

CHUNK = 64 << 10
"""Bytes that are checked together."""

LINE = 64 << 20
"""Longest line, in bytes or characters, that is read."""

TEXT = 64 << 20
"""Longest file, in bytes, that is read whole."""

UTF_8 = ("utf-8", "utf-8-sig")

SAVE_AS_UTF_8 = "Save it as UTF-8: iconv -f WINDOWS-1252 -t UTF-8 (or the encoding that it has)."

SAY_ENCODING = "Save it as UTF-8 (in Excel 'CSV UTF-8'), or name its encoding: --encoding windows-1252."


class NotText(ValueError):
    """Bytes that are not text in the encoding; the message says where."""


class NotTextFile(UsageError):
    """An input that is not text in its encoding; `fault` says where."""

    def __init__(self, name: str, fault: str) -> None:
        super().__init__(f"cannot read {name}: it is {fault}", SAY_ENCODING)
        self.fault = fault


def check_encoding(name: str | None) -> None:
    """Check that --encoding names an encoding of text. Raises UsageError."""
    if name is None:
        return
    try:
        "a".encode(name)  # which refuses encodings that are not of text
        codecs.getincrementaldecoder(name)
    except (LookupError, ValueError, UnicodeError):
        raise UsageError(
            f"--encoding {name} is not a known text encoding", "For example: windows-1252, latin-1, shift_jis, gb18030."
        ) from None


def encoding_of(head: bytes, named: str | None = None) -> str:
    """The encoding of text that begins with these bytes: a byte-order mark, the name given, or zeros as of UTF-16."""
    if named is not None and not head.startswith(MARKS):
        return named
    return json.detect_encoding(head)


def file_encoding(name: str, named: str | None = None) -> str:
    """The encoding of a text file, which may be compressed. Raises UsageError where it cannot be read."""
    try:
        with storage.decompressed(name) as opened:
            return encoding_of(opened.file.read(HEAD), named)
    except OSError as error:
        raise unreadable(name, error) from None


def decoded(data: bytes, named: str | None = None) -> str:
    """The text that the bytes are, without a byte-order mark. Raises NotText."""
    encoding = encoding_of(data[:HEAD], named)
    try:
        return data.decode(encoding)
    except UnicodeError:
        raise NotText(_fault(io.BytesIO(data), encoding)) from None


def text_of(name: str) -> str:
    """All the text of a file. Raises OSError, EFBIG for more than TEXT bytes, and NotText."""
    return decoded(storage.read(name, TEXT))


@contextmanager
def text_file(name: str, encoding: str) -> Iterator[io.TextIOWrapper]:
    """A text file, which may be compressed, open for reading; the ends of its lines are left as they are.

    Raises UsageError, also while it is read: for what is not text in the encoding, with the line.
    """
    try:
        with (
            storage.decompressed(name) as opened,
            io.TextIOWrapper(opened.file, encoding=encoding, newline="") as text,
        ):
            yield text
    except UnicodeError:
        raise not_text(name, encoding) from None
    except OSError as error:
        raise unreadable(name, error) from None


def lines_of(file: Any, encoding: str) -> Iterator[bytes]:
    """The lines of a binary file, in UTF-8, with their ends; one longer than LINE comes in several pieces.

    UTF-8 itself is not checked. Raises UnicodeError for what is not text in another encoding.
    """
    if encoding in UTF_8:
        yield from iter(partial(file.readline, LINE), b"")
        return
    with io.TextIOWrapper(file, encoding=encoding, newline="\n") as text:
        for line in iter(partial(text.readline, LINE), ""):
            yield line.encode("utf-8", "surrogatepass")


def not_text(name: str, encoding: str) -> UsageError:
    """What to raise for a file that is not text in the encoding; the file is read again to find the line."""
    try:
        with storage.decompressed(name) as opened:
            fault = _fault(opened.file, encoding)
    except OSError as error:
        return unreadable(name, error)
    return NotTextFile(name, fault)


def unreadable(name: str, error: OSError) -> UsageError:
    """What to raise for a file that the system cannot read."""
    return UsageError(f"cannot read {name}: {reason(error)}", storage.reading_hint(error))


def _fault(file: Any, encoding: str) -> str:
    """Where the first bytes are that are not text in the encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    while True:
        before = decoder.getstate()
        chunk: bytes = file.read(CHUNK)
        try:
            line += decoder.decode(chunk, final=not chunk).count("\n")
        except UnicodeDecodeError as error:
            decoder.setstate(before)
            line += _lines_before_fault(decoder, chunk)
            shown = "UTF-8" if encoding in UTF_8 else encoding
            return f"not {shown}: line {line} has the byte 0x{error.object[error.start]:02x}"
        except UnicodeError as error:  # which some encodings raise, without a place
            return f"not {encoding}: {reason(error)}"
        if not chunk:
            return f"not {encoding}"


def _lines_before_fault(decoder: codecs.IncrementalDecoder, chunk: bytes) -> int:
    """The ends of lines before the bytes that cannot be decoded."""
    lines = 0
    try:
        for at in range(len(chunk)):
            lines += decoder.decode(chunk[at : at + 1]).count("\n")
    except UnicodeDecodeError:
        pass
    return lines
