"""Small pictures for a page, up to a number of bytes; decoded in separate processes if there are many."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Generator, Hashable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

from blip2cli.errors import ImageError
from blip2cli.host import storage
from blip2cli.host.containment import is_below
from blip2cli.host.processor import cores
from blip2cli.host.terminal import Progress
from blip2cli.images.decode import PIXELS, bytes_of, failure, failure_in, thumbnail
from blip2cli.images.processes import Death, work_through
from blip2cli.inputs.originals import NOT_FOUND
from blip2cli.records import ImageRef, Row, RowError

FEW = 16
"""Up to this many rows no process is started."""

AT_ONCE = 8
"""Images that a process is given together."""

SECONDS = 60.0
"""Time for one image."""


@dataclass(frozen=True)
class Album:
    """Thumbnails in base64, and by the numbers of rows: which of them a row has, or why it has none.

    Rows in neither were left out for their size. `side` is the thumbnails' longer side in pixels. `files` are the paths
    of images that are files of their own on this machine, by the numbers of their rows.
    """

    side: int
    thumbnails: list[str]
    place: dict[int, int]
    faults: dict[int, RowError]
    files: dict[int, str]


def album_of(pictures: Iterable[Row], rows: int, side: int, megabytes: float, quiet: bool) -> Album:
    """The thumbnails of the rows' images, in the order in which these come; repeated images are decoded once.

    Args:
        pictures: rows with their images, or the errors why there are none, by their `index`.
        rows: of the page; pictures with a higher index are passed over.
        side: longer side of the thumbnails in pixels; 0 for none.
        megabytes: their size at most.
        quiet: whether no progress is shown.
    """
    if not side:
        return Album(0, [], {}, {}, {})
    rest = iter(pictures)
    unfinished = UnfinishedAlbum(rows, megabytes * 1e6)
    workers = cores() if rows > FEW else 0
    with (
        closing(Progress(quiet)) as progress,
        closing(_made(unfinished.distinct(rest), side, workers)) as all_made,
    ):
        for made in all_made:
            if not unfinished.add(made):
                break
            progress.advance(1, int(isinstance(made, RowError)))
    for _ in unfinished.distinct(rest):
        pass  # images for which there was no room: their files are noted all the same
    return unfinished.album(side)


@dataclass
class UnfinishedAlbum:
    """An album while its thumbnails are made: the rows of each image, and what became of the images so far.

    Args:
        count: rows of the page; others are passed over.
        room: bytes that are left for thumbnails.
    """

    count: int
    room: float
    thumbnails: list[str] = field(default_factory=list)
    faults: dict[int, RowError] = field(default_factory=dict)
    files: dict[int, str] = field(default_factory=dict)
    rows: dict[Hashable, list[int]] = field(default_factory=dict)
    waiting: deque[Hashable] = field(default_factory=deque)
    results: dict[Hashable, int | RowError] = field(default_factory=dict)

    def distinct(self, pictures: Iterator[Row]) -> Iterator[ImageRef]:
        """The rows' images, each once, in the order in which `add` is told what became of them."""
        for row in pictures:
            if row.index >= self.count:
                continue
            if row.error is not None or row.image is None:
                self.faults[row.index] = row.error or NOT_FOUND
                continue
            if _is_file(row.image):
                self.files[row.index] = row.image.path or ""
            key = _identity(row.image)
            if key in self.rows:
                self.rows[key].append(row.index)
                continue
            self.rows[key] = [row.index]
            self.waiting.append(key)
            yield row.image

    def add(self, made: bytes | RowError) -> bool:
        """Add the next image's thumbnail, or why there is none. False if there is no room for it."""
        if isinstance(made, RowError):
            self.results[self.waiting.popleft()] = made
            return True
        self.room -= 4 * (len(made) + 2) // 3
        if self.room < 0:
            return False
        self.results[self.waiting.popleft()] = len(self.thumbnails)
        self.thumbnails.append(base64.b64encode(made).decode())
        return True

    def album(self, side: int) -> Album:
        """The album with what was added."""
        place: dict[int, int] = {}
        faults = dict(self.faults)
        for key, result in self.results.items():
            for row in self.rows[key]:
                if isinstance(result, RowError):
                    faults[row] = result
                else:
                    place[row] = result
        return Album(side, self.thumbnails, place, faults, self.files)


def _is_file(image: ImageRef) -> bool:
    """Whether an image is a file of its own on this machine, in the folder that it has to be in."""
    if image.path is None or image.size is not None or image.offset or storage.is_url(image.path):
        return False
    return image.within is None or is_below(image.within, image.path)


def _identity(image: ImageRef) -> Hashable:
    """A key that is equal for the same image."""
    if image.data is not None:
        return hashlib.blake2b(image.data, digest_size=16).digest()
    return image.path, image.url, image.offset


def _made(images: Iterator[ImageRef], side: int, workers: int) -> Generator[bytes | RowError]:
    """The thumbnail of each image, or why there is none."""
    lists = iter(lambda: list(islice(images, AT_ONCE)), [])
    with closing(work_through(MakeThumbnails(side), lists, workers, SECONDS, optional=True)) as every:
        for results in every:
            for result in results:
                if isinstance(result, Death):
                    yield result.error
                else:
                    yield failure_in(result) or result[1:]


@dataclass(frozen=True)
class MakeThumbnails:
    """What processes do with a list of images: thumbnails with PIXELS before them, or FAILED and an error's text."""

    side: int

    def __call__(self, images: Iterator[ImageRef]) -> Iterator[bytes]:
        for image in images:
            try:
                yield PIXELS + thumbnail(bytes_of(image), self.side)
            except ImageError as error:
                yield failure(error.error)
            except Exception as error:
                yield failure(RowError("unreadable", type(error).__name__))
