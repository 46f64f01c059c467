"""Image files by name, and folders of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from blip2cli.errors import UsageError
from blip2cli.inputs.image_formats import NO_IMAGES_HINT, unread_summary
from blip2cli.inputs.names import escaped
from blip2cli.inputs.source import Source
from blip2cli.inputs.walk import images_below
from blip2cli.records import ImageRef, Row


@dataclass(frozen=True)
class Files(Source):
    """Image files named one by one.

    `not_images` counts, by suffix, the other files of a glob or a remote folder.
    """

    names: tuple[str, ...]
    not_images: Counter[str] = field(default_factory=Counter)

    def rows(self, start: int = 0) -> Iterator[Row]:
        for name in self.names[start:]:
            yield image_row(name)

    def count(self) -> int | None:
        return len(self.names)

    def unread(self) -> Counter[str]:
        return self.not_images


@dataclass(frozen=True)
class Folder(Source):
    """The images below a folder, with suffixes in any case; hidden files and folders, and
    other files, are left out."""

    name: str
    not_images: Counter[str] = field(default_factory=Counter, compare=False)

    def __post_init__(self) -> None:
        if next(images_below(self.name), None) is None:
            self.count()
            others = f"; {unread_summary(self.not_images)}" if self.not_images else ""
            raise UsageError(f"no images found in {self.name}{others}", NO_IMAGES_HINT)

    @property
    def files(self) -> Sequence[str]:
        return (self.name,)

    def rows(self, start: int = 0) -> Iterator[Row]:
        for path in islice(images_below(self.name), start, None):
            yield image_row(path)

    def count(self) -> int | None:
        self.not_images.clear()
        return sum(1 for _ in images_below(self.name, self.not_images))

    def unread(self) -> Counter[str]:
        return self.not_images


def image_row(path: str) -> Row:
    """The row of an image file; in the name shown, bytes that are not UTF-8 are
    escaped."""
    return Row(0, escaped(path), ImageRef(path=path))
