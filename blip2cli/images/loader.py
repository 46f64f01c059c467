"""Rows to batches of pixels, with processes that read and decode.

The source is read once, in this process; the others get only references to images (or their bytes) and return
pixels, so rows keep their order and the manifest's columns are never sent. A bad image becomes an error in its
place. So does an image that kills two processes (a crash in a decoder) or takes too long twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, repeat

import numpy as np
import torch

from blip2cli.host.processor import cores
from blip2cli.images.decode import DIGEST_BYTES, PIXELS, REPEATED, DecodeImages, Reading, failure_in
from blip2cli.images.processes import Death, work_through
from blip2cli.records import Batch, ImageRef, Row, RowError

FEW = 16
"""Up to this many rows no process is started, unless the number of workers is given."""

BATCH_BYTES = 64 << 20
"""Bytes that the rows of a batch may hold before it is closed: images that came in bytes, and texts."""

BYTES_AHEAD = 256 << 20
"""Bytes of the current rows at which no more are taken."""

NO_ANSWER = RowError("crashed", "the image decoder gave no pixels")
"""The error of an image for which a process returned something that is not valid."""


@dataclass(frozen=True)
class Loading:
    """How batches are made.

    Args:
        batch_size: images a batch.
        workers: processes that decode, by default as many as there are cores; with 0 nothing bounds an image's time.
        pin_memory: whether pixels come in pinned memory.
        image_timeout: seconds after which an image is given up.
        keep_bytes: whether rows keep images that came in bytes once they are decoded.
        first_batch: images of the first batch; each later one has twice as many as the one before, up to
            `batch_size`. None: all have that size.
    """

    batch_size: int
    workers: int | None = None
    pin_memory: bool = False
    image_timeout: float = 60.0
    keep_bytes: bool = True
    first_batch: int | None = None

    def sizes(self) -> Iterator[int]:
        """The number of images of each batch."""
        size = self.first_batch or self.batch_size
        while size < self.batch_size:
            yield size
            size *= 2
        yield from repeat(self.batch_size)


def load(rows: Iterable[Row], reading: Reading, loading: Loading) -> Iterator[Batch]:
    """Batches of the rows, in order. Raises Blip2Error.

    At most a few batches a process are read ahead, and of those that hold much, BYTES_AHEAD and a batch.
    """
    every = iter(rows)
    first = next(_cut(every, repeat(FEW)), ())
    few = len(first) < FEW and sum(row.held for row in first) < BATCH_BYTES
    workers = loading.workers if loading.workers is not None else 0 if few else cores()
    every, first = chain(first, every), ()  # which are not to be held for good
    in_hand: deque[tuple[Row, ...]] = deque()
    bytes_of_batches: deque[int] = deque()  # bytes of each of these

    def lists() -> Iterator[list[ImageRef | None]]:
        for batch in _cut(every, loading.sizes()):
            in_hand.append(batch)
            bytes_of_batches.append(sum(row.held for row in batch))
            yield [row.image if row.to_compute else None for row in batch]

    def has_room() -> bool:
        return sum(bytes_of_batches) < BYTES_AHEAD

    optional = loading.workers is None
    work = work_through(DecodeImages(reading), lists(), workers, loading.image_timeout, optional, has_room)
    with closing(work) as decoded:
        for results in decoded:
            bytes_of_batches.popleft()
            batch = _batch(in_hand.popleft(), results, reading.side, loading.pin_memory)
            yield batch if loading.keep_bytes else _without_bytes(batch)


def _cut(rows: Iterator[Row], sizes: Iterator[int]) -> Iterator[tuple[Row, ...]]:
    """The rows in batches of these sizes, of fewer where they hold much."""
    batch: list[Row] = []
    held_bytes, size = 0, next(sizes)
    for row in rows:
        batch.append(row)
        held_bytes += row.held
        if len(batch) == size or held_bytes >= BATCH_BYTES:
            yield tuple(batch)
            batch, held_bytes, size = [], 0, next(sizes)
    if batch:
        yield tuple(batch)


def _without_bytes(batch: Batch) -> Batch:
    """The batch; its rows no longer hold images."""
    return replace(batch, rows=tuple(row.without_bytes() for row in batch.rows))


def _batch(rows: tuple[Row, ...], results: Sequence[bytes | Death], side: int, pin_memory: bool) -> Batch:
    """The rows, with the results of their images."""
    pixels = torch.empty((len(rows), side, side, 3), dtype=torch.uint8, pin_memory=pin_memory)
    array = pixels.numpy()
    index_of: dict[bytes, int] = {}
    image_of: list[int | None] = []
    errors: list[RowError | None] = []
    for row, result in zip(rows, results, strict=True):
        at, error = _put(result, array, index_of) if row.to_compute else (None, row.error)
        image_of.append(at)
        errors.append(error)
    rows = tuple(row if error is None else row.without_bytes() for row, error in zip(rows, errors, strict=True))
    return Batch(rows, pixels[: len(index_of)], tuple(image_of), tuple(errors), tuple(index_of))


def _put(result: bytes | Death, array: np.ndarray, index_of: dict[bytes, int]) -> tuple[int | None, RowError | None]:
    """Store a result's pixels, unless they are stored already; returns their index, or the error."""
    if isinstance(result, Death):
        return None, result.error
    if (error := failure_in(result)) is not None:
        return None, error
    kind, digest = result[:1], result[1 : 1 + DIGEST_BYTES]
    if kind == PIXELS and digest not in index_of and len(result) == 1 + DIGEST_BYTES + array[0].nbytes:
        at = index_of[digest] = len(index_of)
        array[at] = np.frombuffer(result, np.uint8, offset=1 + DIGEST_BYTES).reshape(array[at].shape)
    if kind in (PIXELS, REPEATED) and digest in index_of:
        return index_of[digest], None
    return None, None if not result else NO_ANSWER
