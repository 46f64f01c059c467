"""Links from a page to image files, relative to the page."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from blip2cli.commands.pages.thumbnails import Album

SHOWN_BY_BROWSERS = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".avif")
"""Suffixes of files that browsers show."""


def link_of(album: Album, row: int, page: Path) -> str | None:
    """The address of a row's image file, relative to the page's folder.

    Only of files that were read as images, or would have been if there had been room for their thumbnails.
    """
    path = album.files.get(row)
    if path is None or row in album.faults:
        return None
    if row not in album.place and not (is_shown_by_browsers(path) and os.path.isfile(path)):
        return None
    return address(path, page.parent)


def is_shown_by_browsers(path: str) -> bool:
    """Whether browsers show a file of this name."""
    return path.lower().endswith(SHOWN_BY_BROWSERS)


def address(path: str, folder: Path) -> str | None:
    """The address of a file in a page of that folder: relative, and with nothing in it that a browser would interpret.

    None where no relative path leads there.
    """
    try:
        relative = os.path.relpath(os.path.abspath(path), os.path.abspath(folder))
    except ValueError:  # on another drive
        return None
    return "./" + quote(os.fsencode(relative.replace(os.sep, "/")))
