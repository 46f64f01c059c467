"""What sources share whose rows come from a table under one name."""

from __future__ import annotations

from collections.abc import Sequence

from blip2cli.inputs.columns import ManifestColumns
from blip2cli.inputs.source import Source


class Table(Source):
    """A source whose rows are described by a table, and can hold texts; its class sets
    `name`."""

    name: str

    @property
    def files(self) -> Sequence[str]:
        return (self.name,)

    @property
    def holds_texts(self) -> bool:
        return True


class Manifest(Table):
    """A source that is one table; its class also sets `columns`."""

    columns: ManifestColumns

    def column_names(self) -> list[str]:
        return list(self.columns.carried)
