"""Small pictures for a page: decoded with care, in processes of their own where there are many, up to so many bytes."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from blip2cli.errors import ImageError
from blip2cli.images import bytes_of, thumbnail
from blip2cli.machine import cores
from blip2cli.records import ImageRef
from blip2cli.report.table import Table
from blip2cli.terminal import Progress
from blip2cli.worker import mapped

if TYPE_CHECKING:
    from blip2cli.report import ReportSettings

FEW = 16
"""Up to this many rows no process is started."""

SECONDS = 60.0
"""Time for one image."""

NOT_FOUND = "missing: its image was not found"


@dataclass(frozen=True)
class Album:
    """Thumbnails in base64, and by the numbers of rows: which of them a row has, or why it has none.

    Rows that are in neither had no room. `side` is the thumbnails' longer side in pixels.
    """

    side: int
    thumbnails: list[str]
    place: dict[int, int]
    faults: dict[int, str]


def album_of(pictures: Iterable[tuple[int, ImageRef]], table: Table, settings: ReportSettings) -> Album:
    """The thumbnails of the rows' images, in the order in which these come; what comes again is not made again."""
    side = settings.side(len(table))
    if not side:
        return Album(0, [], {}, {})
    rows: dict[Hashable, list[int]] = {}
    asked: deque[Hashable] = deque()

    def distinct() -> Iterator[ImageRef]:
        for number, image in pictures:
            if number >= len(table):
                continue
            key = _identity(image)
            rows.setdefault(key, []).append(number)
            if len(rows[key]) == 1:
                asked.append(key)
                yield image

    thumbnails: list[str] = []
    outcome: dict[Hashable, int | str] = {}
    room = settings.thumbnails_mb * 1e6
    workers = cores() if len(table) > FEW else 0
    progress = Progress(None, 0, settings.quiet)
    with closing(mapped(partial(_made, side), distinct(), workers, SECONDS, _died)) as all_made:
        for made in all_made:
            failed = isinstance(made, str)
            room -= 0 if failed else 4 * (len(made) + 2) // 3
            if room < 0:
                break
            outcome[asked.popleft()] = made if isinstance(made, str) else len(thumbnails)
            if isinstance(made, bytes):
                thumbnails.append(base64.b64encode(made).decode())
            progress.advance(1, int(failed))
    progress.close()
    told = {number: outcome[key] for key in outcome for number in rows[key]}
    place = {number: at for number, at in told.items() if isinstance(at, int)}
    faults = {**table.faults, **{number: fault for number, fault in told.items() if isinstance(fault, str)}}
    if room >= 0:
        told_of = {*place, *faults}
        faults.update({number: NOT_FOUND for number in range(len(table)) if number not in told_of})
    return Album(side, thumbnails, place, faults)


def _identity(image: ImageRef) -> Hashable:
    """What is the same for the same image."""
    if image.data is not None:
        return hashlib.blake2b(image.data, digest_size=16).digest()
    return image.path, image.url, image.offset


def _made(side: int, image: ImageRef) -> bytes | str:
    """A thumbnail, or why there is none."""
    try:
        return thumbnail(bytes_of(image), side)
    except ImageError as error:
        return str(error)
    except Exception as error:
        return f"unreadable: {type(error).__name__}"


def _died(_image: ImageRef, cause: str) -> str:
    return cause
