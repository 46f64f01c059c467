"""A list of image paths on stdin, one a line, read as it comes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from blip2cli.inputs.folder import image_row
from blip2cli.records import Row

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Listing:
    """The paths on stdin; empty lines are passed over."""

    def rows(self, start: int = 0) -> Iterator[Row]:
        paths = (os.fsdecode(line.rstrip(b"\r\n")) for line in sys.stdin.buffer)
        return map(image_row, islice(filter(None, paths), start, None))

    def count(self) -> int | None:
        return None

    def column_names(self) -> list[str]:
        return []

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([])
