"""Batches that are computed together, and split if they fail, down to the item that
causes it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from blip2cli.errors import reason
from blip2cli.records import Batch, RowError

MOST_FAILURES = 16
"""Items that fail one after the other, each alone: from so many on, the model or the
machine is broken."""

NO_IMAGE = RowError("missing", "no image")
"""The error of a row that has neither an image nor an error of its own."""


@dataclass(frozen=True, slots=True)
class Failed:
    """In place of the result of an item that fails even alone; `error` is that of its
    output rows."""

    error: RowError


def for_each_row(batch: Batch, encoded: Sequence[Any]) -> list[Any | Failed]:
    """The encoded image of each of the batch's rows, or Failed with the row's error."""
    results: list[Any | Failed] = []
    for at, error in zip(batch.image_of, batch.errors, strict=True):
        results.append(Failed(error or NO_IMAGE) if at is None else encoded[at])
    return results


@dataclass
class Batches:
    """Computes batches of up to `largest` items, and finds the items that fail.

    If memory runs out for a batch, the batch and `largest` are halved. A batch that fails
    otherwise is split until the items that cause it are alone.

    Args:
        largest: the most items of a batch.
        has_worked: whether anything has ever succeeded.
        failures: how many items have failed since something last succeeded.
        first_failure: the exception of the first of them.
    """

    largest: int
    has_worked: bool = False
    failures: int = 0
    first_failure: Exception | None = field(default=None, repr=False)

    def compute(self, function: Callable[[Any], Iterable[Any]], items: Any, whole: bool = True) -> list[Any]:
        """The result of `function` for each of the items (a list, or a tensor's rows), or
        Failed.

        Raises torch.OutOfMemoryError if a single item does not fit. Raises the first
        exception if MOST_FAILURES items fail one after the other; also if nothing has
        ever succeeded, and all of several items fail that are a `whole` batch.
        """
        results = self._compute_or_split(function, items)
        if self.first_failure and whole and len(results) > 1 and not self.has_worked:
            raise self.first_failure
        return results

    def note_success(self) -> None:
        """Note that something succeeded."""
        self.has_worked, self.failures, self.first_failure = True, 0, None

    def _compute_or_split(self, function: Callable[[Any], Iterable[Any]], items: Any) -> list[Any]:
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
                self.note_success()
                return results
        size = min(self.largest, (len(items) + 1) // 2)
        results = []
        for at in range(0, len(items), size):
            results += self._compute_or_split(function, items[at : at + size])
        return results

    def _failed(self, error: Exception) -> Failed:
        traceback.clear_frames(error.__traceback__)  # they hold tensors
        self.first_failure = self.first_failure or error
        self.failures += 1
        if self.failures >= MOST_FAILURES:
            raise self.first_failure
        return Failed(RowError("failed", reason(error, named=True)))
