"""Cards: the images of a page, each with the rows that are about it, its thumbnail, and the address of its file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from blip2cli.commands.report.table import PageTable
from blip2cli.commands.report.thumbnails import Album

SEARCH = ("query", "rank")
"""Columns of what a search found, whose rows stand alone: their order is what they say."""

SHOWN_BY_BROWSERS = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".avif")
"""Suffixes of files that are shown in full although no thumbnail was made of them."""


@dataclass
class Cards:
    """The cards of a page, in the order of their first rows.

    Args:
        alone: whether each row has a card of its own, because it is a result of a search.
        of_row: for each row the number of its card.
        names: of each card, the name of its image.
        places: of each card, which thumbnail it has, or -1.
        links: of each card, the address of its image's file as seen from the page, or None.
        faults: why a card has no thumbnail, by its number.
    """

    alone: bool = False
    of_row: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    links: list[str | None] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def bare(self) -> int:
        """How many cards have no thumbnail, and nothing that says why."""
        return sum(place < 0 and card not in self.faults for card, place in enumerate(self.places))


def cards_of(table: PageTable, album: Album, page: Path) -> Cards:
    """One card for each image: rows of the same name, unless their thumbnails differ. `page` is the page's file."""
    cards = Cards(alone=set(SEARCH) <= {field.name for field in table.fields})
    card_of: dict[tuple[str, int], int] = {}
    folder = os.path.abspath(page.parent)
    for row, name in enumerate(table.names):
        place = album.place.get(row, -1)
        card = None if cards.alone else card_of.get((name, place))
        if card is None:
            card = card_of[name, place] = len(cards)
            cards.names.append(name)
            cards.places.append(place)
            cards.links.append(_link(album, row, folder))
            if row in album.faults:
                cards.faults[card] = str(album.faults[row])
        cards.of_row.append(card)
    return cards


def _link(album: Album, row: int, folder: str) -> str | None:
    """The address of a row's image file, relative to the page's folder.

    Only of files that were read as images, or would have been if there had been room for their thumbnails.
    """
    path = album.files.get(row)
    if path is None or row in album.faults:
        return None
    if row not in album.place and not (path.lower().endswith(SHOWN_BY_BROWSERS) and os.path.isfile(path)):
        return None
    return address(path, folder)


def address(path: str, folder: str) -> str | None:
    """The address of a file in a page of that folder: relative, and with nothing in it that a browser would interpret.

    None where no relative path leads there.
    """
    try:
        relative = os.path.relpath(os.path.abspath(path), folder)
    except ValueError:  # on another drive
        return None
    return "./" + quote(os.fsencode(relative.replace(os.sep, "/")))
