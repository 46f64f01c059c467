"""Why rows failed: the details of their errors, counted by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from blip2cli.records import RowError

MOST = 1000
"""Different details that are counted; those with a path in them are all different."""


class Reasons:
    """Counts of the details of errors, by kind; of the first MOST different ones."""

    def __init__(self) -> None:
        self.by_kind: dict[str, Counter[str]] = {}
        self._different = 0

    def add(self, error: RowError) -> None:
        """Count an error."""
        if error.detail:
            self.update({error.kind: {error.detail: 1}})

    def update(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Add the counts of others."""
        for kind, details in counts.items():
            counted = self.by_kind.setdefault(kind, Counter())
            for detail, times in details.items():
                if detail not in counted:
                    self._different += 1
                if detail in counted or self._different <= MOST:
                    counted[detail] += times

    def counts(self) -> dict[str, dict[str, int]]:
        """Kind → detail → how often it was met, the most frequent first."""
        return {kind: dict(details.most_common()) for kind, details in self.by_kind.items()}
