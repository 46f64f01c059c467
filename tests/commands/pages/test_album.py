"""Thumbnails of a page's images."""

import time

from blip2cli.commands.pages.thumbnails import album_of
from blip2cli.records import Row


def test_rows_whose_images_are_gone_take_time_by_their_number_only() -> None:
    def seconds(rows: int) -> float:
        pictures = [Row(at, f"{at}.png") for at in range(rows)]
        started = time.process_time()
        album = album_of(pictures, rows, side=144, megabytes=float("inf"), quiet=True)
        assert len(album.faults) == rows
        return time.process_time() - started

    few, many = (min(seconds(rows) for _ in range(3)) for rows in (2_000, 20_000))
    assert many < 40 * few, "ten times the rows take about ten times as long, and not a hundred times"
