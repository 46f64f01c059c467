"""How much a page holds, unless its command is told otherwise."""

from __future__ import annotations

SIDES = ((500, 320), (2_500, 224))
"""Side in pixels of the thumbnails of a page with up to so many rows."""

SIDE = 144
"""That of a page with more rows."""

THUMBNAILS_MB = 64.0
"""Total size of a page's thumbnails at most, in megabytes."""

MOST_LETTERS = 4_000
"""Letters of a text that are shown."""


def usual_side(rows: int) -> int:
    """Longer side in pixels of the thumbnails of a page with so many rows."""
    return next((side for most, side in SIDES if rows <= most), SIDE)
