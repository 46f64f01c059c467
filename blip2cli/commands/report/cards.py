"""Cards: the images of a page, each with the rows that are about it, its thumbnail, and the address of its file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from blip2cli.commands.pages.links import link_of
from blip2cli.commands.pages.thumbnails import Album
from blip2cli.commands.report.table import PageTable

SEARCH = ("query", "rank")
"""Columns of what a search found, whose rows stand alone: their order is what they say."""


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
    for row, name in enumerate(table.names):
        place = album.place.get(row, -1)
        card = None if cards.alone else card_of.get((name, place))
        if card is None:
            card = card_of[name, place] = len(cards)
            cards.names.append(name)
            cards.places.append(place)
            cards.links.append(link_of(album, row, page))
            if row in album.faults:
                cards.faults[card] = str(album.faults[row])
        cards.of_row.append(card)
    return cards
