"""Small pictures for a page, up to a number of bytes; decoded in separate processes if there are many."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Generator, Hashable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from blip2cli.commands.report.table import PageTable
from blip2cli.errors import ImageError
from blip2cli.host.processor import cores
from blip2cli.host.terminal import Progress
from blip2cli.images.decode import PIXELS, bytes_of, failure, failure_in, thumbnail
from blip2cli.images.processes import Death, work_through
from blip2cli.inputs.originals import NOT_FOUND
from blip2cli.records import ImageRef, Row, RowError

if TYPE_CHECKING:
    from blip2cli.commands.report import ReportSettings

FEW = 16
"""Up to this many rows no process is started."""

AT_ONCE = 8
"""Images that a process is given together."""

SECONDS = 60.0
"""Time for one image."""


@dataclass(frozen=True)
class Album:
    """Thumbnails in base64, and by the numbers of rows: which of them a row has, or why it has none.

    Rows in neither were left out for their size. `side` is the thumbnails' longer side in pixels.
    """

    side: int
    thumbnails: list[str]
    place: dict[int, int]
    faults: dict[int, RowError]


def album_of(pictures: Iterable[Row], table: PageTable, settings: ReportSettings) -> Album:
    """The thumbnails of the rows' images, in the order in which these come; repeated images are decoded once."""
    side = settings.side(len(table))
    if not side:
        return Album(0, [], {}, {})
    rows: dict[Hashable, list[int]] = {}
    asked: deque[Hashable] = deque()
    faults: dict[int, RowError] = {}

    def distinct() -> Iterator[ImageRef]:
        for row in pictures:
            if row.index >= len(table):
                continue
            if row.error is not None or row.image is None:
                faults[row.index] = row.error or NOT_FOUND
                continue
            key = _identity(row.image)
            rows.setdefault(key, []).append(row.index)
            if len(rows[key]) == 1:
                asked.append(key)
                yield row.image

    thumbnails: list[str] = []
    outcome: dict[Hashable, int | RowError] = {}
    room = settings.thumbnails_mb * 1e6
    workers = cores() if len(table) > FEW else 0
    with (
        closing(Progress(None, 0, settings.quiet)) as progress,
        closing(_made(distinct(), side, workers)) as all_made,
    ):
        for made in all_made:
            if isinstance(made, RowError):
                outcome[asked.popleft()] = made
                progress.advance(1, 1)
                continue
            room -= 4 * (len(made) + 2) // 3
            if room < 0:
                break
            outcome[asked.popleft()] = len(thumbnails)
            thumbnails.append(base64.b64encode(made).decode())
            progress.advance(1, 0)
    outcomes = {number: outcome[key] for key in outcome for number in rows[key]}
    place = {number: at for number, at in outcomes.items() if isinstance(at, int)}
    faults.update({number: fault for number, fault in outcomes.items() if isinstance(fault, RowError)})
    return Album(side, thumbnails, place, faults)


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
