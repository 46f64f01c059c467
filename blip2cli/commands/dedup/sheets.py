"""Groups of duplicates as contact sheets, on one HTML page without a script."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blip2cli.commands.dedup.options import DedupOptions
from blip2cli.commands.pages.bounds import MOST_LETTERS, THUMBNAILS_MB, usual_side
from blip2cli.commands.pages.html import rendered
from blip2cli.commands.pages.links import link_of
from blip2cli.commands.pages.thumbnails import Album, album_of
from blip2cli.host.files import write_atomically
from blip2cli.host.terminal import show_note
from blip2cli.settings import Job

if TYPE_CHECKING:
    from blip2cli.commands.results.pictures import Pictures
    from blip2cli.features.duplicates import Duplicates

BROWSER = Path(__file__).parent / "browser"
"""The folder of its template and its style sheet."""

IMAGES = 2_000
"""Images that a page shows at most."""

IMAGES_OF_GROUP = 60
"""Images of one group that it shows at most."""

SHOWN_OF_ERROR = 200
"""Letters of an error that are shown."""


@dataclass(frozen=True)
class SheetImage:
    """One image of a sheet: its name, thumbnail in base64, link, and what is said of it."""

    name: str
    thumbnail: str | None
    link: str | None
    kept: bool
    note: str


@dataclass(frozen=True)
class Sheet:
    """A group: its number, how many images it has, and those that are shown, the kept one first."""

    number: int
    size: int
    pictures: list[SheetImage]


def write_sheets(job: Job, pictures: Pictures, duplicates: Duplicates, found: str) -> None:
    """Write the page of --report: the largest groups first; `found` is what was found, in words. Raises OutputError."""
    options = job.options_as(DedupOptions)
    assert options.report is not None
    groups = groups_of(duplicates)
    shown = list(bounded(groups))
    rows = [row for group in shown for row in group]
    names = [record["image"] for record in pictures.features.records(rows)]
    places = {row: place for place, row in enumerate(rows)}
    images = pictures.rows((places[row], name) for row, name in zip(rows, names, strict=True))
    album = album_of(images, len(rows), usual_side(len(rows)), THUMBNAILS_MB, job.output.quiet)
    sheets = list(_sheets(shown, groups, duplicates, ImagesOfPage(names, album, options.report)))
    data = render(job, sheets, len(groups), found)
    write_atomically(options.report, data)
    if not job.output.quiet:
        show_note(f"{options.report}: {len(sheets):,} of {len(groups):,} groups, {len(data) / 1e6:.1f} MB")


def groups_of(duplicates: Duplicates) -> list[list[int]]:
    """The rows of each group of several, the kept one first and then the nearest; the largest groups first."""
    members: dict[int, list[int]] = {}
    for row in (~duplicates.is_kept).nonzero()[0].tolist():
        members.setdefault(int(duplicates.kept[row]), []).append(row)
    groups = []
    for kept in sorted(members):
        nearest = sorted(members[kept], key=lambda row: (not duplicates.exact[row], -duplicates.similarity[row], row))
        groups.append([kept, *nearest])
    return sorted(groups, key=len, reverse=True)


def bounded(groups: list[list[int]]) -> Iterator[list[int]]:
    """Those groups, and of each as many rows, as a page shows."""
    room = IMAGES
    for group in groups:
        if room < 2:
            return
        yield group[: min(IMAGES_OF_GROUP, room)]
        room -= min(IMAGES_OF_GROUP, room, len(group))


@dataclass(frozen=True)
class ImagesOfPage:
    """The names and thumbnails of the images of a page, in the order of its sheets."""

    names: list[str]
    album: Album
    page: Path

    def picture(self, place: int, kept: bool, note: str) -> SheetImage:
        number = self.album.place.get(place)
        thumbnail = None if number is None else self.album.thumbnails[number]
        if place in self.album.faults:
            note = f"{note} ({str(self.album.faults[place])[:SHOWN_OF_ERROR]})"
        name = self.names[place][:MOST_LETTERS]
        return SheetImage(name, thumbnail, link_of(self.album, place, self.page), kept, note)


def _sheets(
    shown: list[list[int]], groups: list[list[int]], duplicates: Duplicates, images: ImagesOfPage
) -> Iterator[Sheet]:
    numbers = duplicates.groups
    place = 0
    for rows, group in zip(shown, groups, strict=False):
        pictures = []
        for row in rows:
            kept = row == duplicates.kept[row]
            pictures.append(images.picture(place, kept, _note(duplicates, row)))
            place += 1
        yield Sheet(int(numbers[rows[0]]), len(group), pictures)


def _note(duplicates: Duplicates, row: int) -> str:
    """What is said of an image."""
    if duplicates.kept[row] == row:
        return "kept"
    return "same content" if duplicates.exact[row] else f"similarity {duplicates.similarity[row]:.4f}"


def render(job: Job, sheets: list[Sheet], groups: int, found: str) -> bytes:
    """The page in UTF-8."""
    return rendered(
        BROWSER,
        "sheets",
        ", ".join(map(str, job.input.inputs)),
        found=found,
        options=job.options_as(DedupOptions),
        sheets=sheets,
        groups=groups,
        bare=sum(picture.thumbnail is None for sheet in sheets for picture in sheet.pictures),
    )
