"""A list of image paths on stdin, one a line, read as it comes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blip2cli.inputs.folder import image_row
from blip2cli.records import Row

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Listing:
    """The paths on stdin; empty lines are passed over."""

    def rows(self) -> Iterator[Row]:
        for line in sys.stdin.buffer:
            path = os.fsdecode(line.rstrip(b"\r\n"))
            if path:
                yield image_row(path)

    def count(self) -> int | None:
        return None

    def column_names(self) -> list[str]:
        return []

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([])
