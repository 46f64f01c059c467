"""Batches: computed together where that works, and split where it does not, down to the item that fails."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from blip2cli.errors import reason
from blip2cli.records import Batch, RowError

IN_A_ROW = 16
"""So many items that fail one after the other, each alone, mean that the model or the machine is broken."""

NO_IMAGE = RowError("missing", "no image")
"""The error of a row that has neither an image nor an error of its own."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Stands for what an item that fails even alone would have given; `error` is that of its output rows."""

    error: RowError


def for_each_row(batch: Batch, encoded: Sequence[Any]) -> list[Any | Failed]:
    """What was made of the image of each of the batch's rows, or Failed with the row's error."""
    rows = zip(batch.image_of, batch.errors, strict=True)
    return [Failed(error or NO_IMAGE) if at is None else encoded[at] for at, error in rows]


@dataclass
class Batches:
    """Computes batches of up to `largest` items, and finds those that fail.

    A batch for which memory runs out is halved, and `largest` with it from then on. One that fails otherwise is split
    until the culprits are alone. `first` is the first of the `failures` since anything last worked; `ever` says whether
    anything has.
    """

    largest: int
    ever: bool = False
    failures: int = 0
    first: Exception | None = field(default=None, repr=False)

    def compute(self, function: Callable[[Any], Iterable[Any]], items: Any, whole: bool = True) -> list[Any]:
        """What `function` gives for each of the items (a list, or a tensor's rows), or Failed.

        Raises torch.OutOfMemoryError where a single item does not fit, and the first error where IN_A_ROW items fail
        one after the other, or all of several that are a `whole` batch, and nothing has ever worked.
        """
        results = self._split(function, items)
        if self.first and whole and len(results) > 1 and not self.ever:
            raise self.first
        return results

    def worked(self) -> None:
        """Note that something did not fail."""
        self.ever, self.failures, self.first = True, 0, None

    def _split(self, function: Callable[[Any], Iterable[Any]], items: Any) -> list[Any]:
        if len(items) <= self.largest:
            try:
                results = list(function(items))
            except torch.OutOfMemoryError:
                if len(items) == 1:
                    raise
                self.largest = len(items) // 2
            except Exception as error:
                if len(items) == 1:
                    return [self._failed(error)]
            else:
                self.worked()
                return results
        size = min(self.largest, (len(items) + 1) // 2)
        parts = (items[at : at + size] for at in range(0, len(items), size))
        return [result for part in parts for result in self._split(function, part)]

    def _failed(self, error: Exception) -> Failed:
        traceback.clear_frames(error.__traceback__)  # they hold tensors
        self.first = self.first or error
        self.failures += 1
        if self.failures >= IN_A_ROW:
            raise self.first
        return Failed(RowError("failed", reason(error, named=True)))
