"""Lists of image paths, one a line: on stdin, or in a .txt file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from blip2cli.errors import UsageError
from blip2cli.host import storage
from blip2cli.inputs.columns import ColumnChoice, choose_columns
from blip2cli.inputs.encoding import LINE, UTF_8, file_encoding, lines_of, not_text, unreadable
from blip2cli.inputs.folder import image_row
from blip2cli.inputs.image_formats import is_image
from blip2cli.inputs.manifest import Manifest
from blip2cli.inputs.source import Source
from blip2cli.records import Row

IMAGE = "image"

A_LINE_EACH = (
    "A .txt input lists images, one path or URL on each line; paths start from its folder or from --image-root."
)


NO_PATHS = (
    "there are no paths on stdin",
    "Check the command before the pipe, for example: find photos -name '*.jpg' | blip2 caption -",
)
"""What is wrong with an empty list, and what to do."""


@dataclass(frozen=True)
class Listing(Source):
    """The paths on stdin, read as they come; empty lines are skipped."""

    def __post_init__(self) -> None:
        if not sys.stdin.buffer.peek(1):  # type: ignore[union-attr]  # stdin is buffered
            raise UsageError(*NO_PATHS)

    @property
    def may_wait(self) -> bool:
        return True

    def rows(self, start: int = 0) -> Iterator[Row]:
        """The rows as they come. Raises UsageError where there are only empty lines."""
        paths = _paths(sys.stdin.buffer)
        first = next(paths, None)
        if first is None and not start:
            raise UsageError(*NO_PATHS)
        listed = chain([] if first is None else [first], paths)
        return map(image_row, islice(listed, start, None))


class ListFile(Manifest):
    """A text file of paths or URLs, which are taken as those of a manifest's image column; it has no other column."""

    def __init__(self, name: str, columns: ColumnChoice) -> None:
        self.name = name
        self._encoding = file_encoding(name, columns.encoding)
        if columns.text_required:
            raise UsageError(
                f"{name} has no column {columns.text}", "It is a list of images; only tables have columns."
            )
        names = [columns.image or IMAGE]
        self.columns = choose_columns(name, names, columns)
        self._count = sum(1 for _ in self._paths())
        first = next(self._paths(), None)
        if first is None:
            raise UsageError(f"{name} is empty", A_LINE_EACH)
        if not self._names_an_image(first):
            raise UsageError(f"{name} is not a list of images: its first line names no image", A_LINE_EACH)

    def rows(self, start: int = 0) -> Iterator[Row]:
        for number, path in enumerate(islice(self._paths(), start, None), start):
            yield self.columns.row({self.columns.image or IMAGE: path}, number)

    @property
    def holds_texts(self) -> bool:
        return False

    def count(self) -> int | None:
        return self._count

    def _names_an_image(self, path: str) -> bool:
        """Whether a line may be meant as an image: text files with captions are often beside images."""
        image = self.columns.row({self.columns.image or IMAGE: path}, 0).image
        return storage.is_url(path) or is_image(path) or (image is not None and os.path.exists(image.path or ""))

    def _paths(self) -> Iterator[str]:
        """The paths; bytes of UTF-8 and of no encoding are as the file system has them. Raises UsageError."""
        try:
            with storage.decompressed(self.name) as opened:
                for path in _paths(lines_of(opened.file, self._encoding), self._encoding):
                    if len(path) >= LINE:
                        raise UsageError(f"{self.name} is not a list of paths", "It has a line of 64 MiB.")
                    yield path
        except UnicodeError:
            raise not_text(self.name, self._encoding) from None
        except OSError as error:
            raise unreadable(self.name, error) from None


def _paths(lines: Iterable[bytes], encoding: str = "utf-8") -> Iterator[str]:
    """The lines that are not empty as paths, without a byte-order mark."""
    for number, line in enumerate(lines):
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line
        if text := text.rstrip(b"\r\n"):
            yield os.fsdecode(text) if encoding in UTF_8 else text.decode("utf-8", "surrogatepass")
