"""Originals: the images that rows of results are about, found again by the rows' names.

Results may come from anybody. Where the user gives a root, nothing is read but what really lies below it, archives and
tables included; bytes within the results, and inputs that the user names, are read anyway. Without a root the names
lead wherever this user may read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from blip2cli.errors import Blip2Error
from blip2cli.host import storage
from blip2cli.host.containment import is_below
from blip2cli.inputs import ColumnChoice, Sources, format_of, open_source
from blip2cli.inputs.names import escaped, unescaped
from blip2cli.records import Row, RowError

HELD = re.compile(r"/|#\d+\Z")
"""Where a name may go on after that of an archive, or of a manifest that holds bytes: ARCHIVE/MEMBER, NAME#ROW."""

NOT_FOUND = RowError("missing", "its image was not found")

Wanted = dict[str, list[Row]]
"""Rows by their names; those of one name are about one image."""


@dataclass(frozen=True)
class Originals:
    """Where the images of results are: in inputs that the user names, or else where the rows' names lead.

    Args:
        columns: how the results are read: where paths start from, and whether URLs are fetched.
        inputs: inputs of the run.
        image_column: the column that the run took images from, if one was named.
    """

    columns: ColumnChoice
    inputs: tuple[str, ...] = ()
    image_column: str | None = None

    @cached_property
    def source(self) -> Sources:
        """The inputs that the user names. Raises UsageError, also where the root does not exist."""
        return open_source(self.inputs, self._within)

    @property
    def files(self) -> list[str]:
        """The inputs that the user names, and files that they stand for. Raises UsageError where there are none."""
        return [*self.inputs, *self.source.files]

    def of(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows without their columns, in the order in which images come by: each with its image, or an error.

        Rows come with the places that their names stand for. Images that are held as bytes are not kept.
        """
        wanted: Wanted = {}
        for row in rows:
            bare = Row(row.index, row.name, row.image, error=row.error)
            if row.image is not None and (row.image.data is not None or row.image.size is not None):
                yield bare  # the results hold its bytes
            else:
                wanted.setdefault(row.name, []).append(bare)
        yield from _wanted_rows(self.source.rows(), wanted)
        held: dict[str, Wanted] = {}
        for some in wanted.values():
            if held_by := self._holder(some[0]):
                holder, member = held_by
                held.setdefault(holder, {}).setdefault(member, []).extend(some)
            else:
                yield from (self._contained(self._placed(row)) for row in some)
        for holder, rest in held.items():
            yield from self._held(holder, rest)

    @cached_property
    def _within(self) -> ColumnChoice:
        """How inputs are read."""
        return replace(self.columns, image=self.image_column)

    def _contained(self, row: Row) -> Row:
        """The row with its image bound to the root, where there is one."""
        image = row.image
        if self.columns.root is None or image is None or image.path is None:
            return row
        return replace(row, image=replace(image, within=self.columns.root))

    def _placed(self, row: Row) -> Row:
        """The row with its image's file: from this folder on, where a run named it so, or else as the results say."""
        image = row.image
        if self.columns.root is not None or image is None or image.path is None or storage.is_url(image.path):
            return row
        found = next(filter(os.path.exists, _spellings(row.name)), None)
        return row if found is None else replace(row, image=replace(image, path=found))

    def _holder(self, row: Row) -> tuple[str, str] | None:
        """The manifest or archive that holds the image of a row, if its name says so, and what the name says after it.

        As files are, it is looked for from this folder on, and then from where the results are; or only below the root.
        """
        if row.image is None or row.image.path is None or storage.is_url(row.image.path):
            return None
        for cut in reversed([found.start() for found in HELD.finditer(row.name)]):
            holder, member = row.name[:cut], row.name[cut:]
            if format_of(holder):
                beside = _spellings(row.image.path.removesuffix(member))
                if place := self._place_of(_spellings(holder), beside):
                    return place, member
        return None

    def _place_of(self, here: tuple[str, ...], beside: tuple[str, ...]) -> str | None:
        """The first of these files that exists; with a root, the first beside the results and really below it."""
        root = self.columns.root
        if root is None:
            return next(filter(os.path.isfile, (*here, *beside)), None)
        inside = (os.path.realpath(place) for place in beside if is_below(root, place))
        return next((place for place in inside if os.path.isfile(place) and format_of(place)), None)

    def _held(self, holder: str, wanted: Wanted) -> Iterator[Row]:
        """The rows whose names lead into a manifest or an archive, which need not be what it was."""
        fault, start = NOT_FOUND, escaped(holder)
        try:
            rows = open_source([holder], self._within).rows()
            named = (replace(row, name=row.name.removeprefix(start)) for row in rows)
            yield from map(self._contained, _wanted_rows(named, wanted))
        except Blip2Error as error:
            fault = RowError("unreadable", error.message)
        for some in wanted.values():
            yield from (replace(row, image=None, error=fault) for row in some)


def _wanted_rows(rows: Iterator[Row], wanted: Wanted) -> Iterator[Row]:
    """Those of the wanted rows that are among the rows, with what these have; they are wanted no more."""
    while wanted and (found := next(rows, None)):
        for row in wanted.pop(found.name, ()):
            yield replace(row, image=found.image, error=found.error)


def _spellings(name: str) -> tuple[str, str]:
    """The paths that a name stands for: bytes that are not UTF-8 are backslash escapes in it, or it has backslashes."""
    return name, unescaped(name)
