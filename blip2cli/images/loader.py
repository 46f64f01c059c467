"""Rows to batches of pixels, with processes that read and decode.

The source is read once, in this process; the others get only references to images (or their bytes) and return
pixels, so rows keep their order and the manifest's columns are never sent. A bad image becomes an error in its
place. So does an image that kills two processes (a crash in a decoder) or takes too long twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import TypeVar

import numpy as np
import torch

from blip2cli.host.processor import cores
from blip2cli.images.decode import DIGEST_BYTES, PIXELS, REPEATED, DecodeImages, Reading, failure_in
from blip2cli.images.processes import Death, Workload
from blip2cli.images.processes.pool import Pool
from blip2cli.images.ready import FEW, ReadyProcesses
from blip2cli.records import Batch, ImageRef, Row, RowError

T = TypeVar("T")

LIST = 16
"""Images that a process is given together."""

FIRST_LISTS = (4, 8)
"""The same for the first lists, so that the first images are soon there."""

BATCH_BYTES = 64 << 20
"""Bytes that the rows of a batch, or of a list, may hold before it is closed: images that came in bytes, and texts."""

BYTES_AHEAD = 256 << 20
"""Bytes of the current rows at which no more are taken."""

NO_ANSWER = RowError("crashed", "the image decoder gave no pixels")
"""The error of an image for which a process returned something that is not valid."""


@dataclass(frozen=True)
class Loading:
    """How images are loaded.

    Args:
        workers: processes that decode, by default as many as there are cores; with 0 nothing bounds an image's time.
        pin_memory: whether pixels come in pinned memory.
        image_timeout: seconds after which an image is given up.
        keep_bytes: whether rows keep images that came in bytes once they are decoded.
    """

    workers: int | None = None
    pin_memory: bool = False
    image_timeout: float = 60.0
    keep_bytes: bool = True


ALL_CORES = Loading()


@dataclass(frozen=True)
class BatchSizes:
    """How many images each batch has.

    Args:
        largest: images a batch.
        first: images of the first batch; each later one has twice as many as the one before, up to
            `largest`. None: all have that size.
    """

    largest: int
    first: int | None = None

    def __iter__(self) -> Iterator[int]:
        size = self.first or self.largest
        while size < self.largest:
            yield size
            size *= 2
        yield from repeat(self.largest)


Decoded = tuple[Row, "bytes | Death"]
"""A row, and the result of its image."""


class Loader:
    """Rows on their way to batches. Images are decoded in lists whose lengths do not depend on
    the batches, so that this can begin before the size of batches is known."""

    def __init__(
        self, rows: Iterable[Row], reading: Reading, loading: Loading, ready: ReadyProcesses | None = None
    ) -> None:
        """Processes that are `ready` are used, if they read images in this way."""
        self.reading, self.loading = reading, loading
        self.ready = ready or ReadyProcesses()
        self.rows = iter(rows)
        self.in_hand: deque[tuple[Row, ...]] = deque()
        self.bytes_of_lists: deque[int] = deque()  # bytes of each of these
        self.workload: Workload[ImageRef | None] | None = None

    def start(self, read: bool = True) -> None:
        """Start processes, and let them decode the first images.

        Without `read` no row is read, which may take long, and the processes only get ready; if
        their number depends on that of the rows, nothing starts. Raises what the rows raise.
        """
        if read or self.loading.workers is not None:
            self._begun().start(read)

    def batches(self, sizes: BatchSizes) -> Iterator[Batch]:
        """The rows in batches, in order. Raises Blip2Error.

        At most a few lists a process or two batches are read ahead, and of those that hold much, BYTES_AHEAD
        and a batch.
        """
        workload = self._begun()
        workload.least_ahead = -(-2 * sizes.largest // LIST)
        for decoded in _cut(self._decoded(workload), iter(sizes), lambda decoded: decoded[0].held):
            batch = _batch(decoded, self.reading.side, self.loading.pin_memory)
            yield batch if self.loading.keep_bytes else _without_bytes(batch)

    def close(self) -> None:
        """End the processes."""
        if self.workload is not None:
            self.workload.close()

    def _begun(self) -> Workload[ImageRef | None]:
        """The work of decoding, as soon as it is known how many processes do it."""
        if self.workload is None:
            workers = self.loading.workers
            if workers is None:
                workers = 0 if self._are_few() else cores()
            optional = self.loading.workers is None
            work = DecodeImages(self.reading)
            self.workload = Workload(work, self._lists(), self._pool(workers), optional, self._has_room)
        return self.workload

    def _pool(self, workers: int) -> Pool[ImageRef | None] | None:
        """The processes that decode; None if this process does."""
        if not workers:
            self.ready.close()
            return None
        ready = self.ready.take(self.reading)
        return ready or Pool(DecodeImages(self.reading), workers, self.loading.image_timeout)

    def _are_few(self) -> bool:
        """Whether the rows, which may hold their images, are so few that no process is worth its start."""
        first = next(_cut(self.rows, repeat(FEW), _held), ())
        self.rows = chain(first, self.rows)
        return len(first) < FEW and sum(map(_held, first)) < BATCH_BYTES

    def _lists(self) -> Iterator[list[ImageRef | None]]:
        """The images of the rows: few at first, so that the first are soon there."""
        for rows in _cut(self.rows, chain(FIRST_LISTS, repeat(LIST)), _held):
            self.in_hand.append(rows)
            self.bytes_of_lists.append(sum(map(_held, rows)))
            yield [row.image if row.to_compute else None for row in rows]

    def _has_room(self) -> bool:
        return sum(self.bytes_of_lists) < BYTES_AHEAD

    def _decoded(self, workload: Workload[ImageRef | None]) -> Iterator[Decoded]:
        for results in workload.results():
            self.bytes_of_lists.popleft()
            yield from zip(self.in_hand.popleft(), _with_pixels(results), strict=True)


def load(rows: Iterable[Row], reading: Reading, batch_size: int, loading: Loading = ALL_CORES) -> Iterator[Batch]:
    """The rows in batches of that size, in order. Raises Blip2Error."""
    with closing(Loader(rows, reading, loading)) as loader:
        yield from loader.batches(BatchSizes(batch_size))


def _held(row: Row) -> int:
    return row.held


def _cut(items: Iterator[T], sizes: Iterator[int], held: Callable[[T], int]) -> Iterator[tuple[T, ...]]:
    """The items in tuples of these sizes, of fewer where their rows hold much."""
    part: list[T] = []
    held_bytes, size = 0, next(sizes)
    for item in items:
        part.append(item)
        held_bytes += held(item)
        if len(part) == size or held_bytes >= BATCH_BYTES:
            yield tuple(part)
            part, held_bytes, size = [], 0, next(sizes)
    if part:
        yield tuple(part)


def _with_pixels(results: Iterable[bytes | Death]) -> Iterator[bytes | Death]:
    """The results of a list, with pixels in place of those that only name an earlier image of
    the list: they may go into different batches."""
    whole: dict[bytes, bytes] = {}
    for result in results:
        if isinstance(result, bytes) and result[:1] == PIXELS:
            whole[result[1 : 1 + DIGEST_BYTES]] = result
        elif isinstance(result, bytes) and result[:1] == REPEATED:
            result = whole.get(result[1:], result)
        yield result


def _without_bytes(batch: Batch) -> Batch:
    """The batch; its rows no longer hold images."""
    return replace(batch, rows=tuple(row.without_bytes() for row in batch.rows))


def _batch(decoded: Sequence[Decoded], side: int, pin_memory: bool) -> Batch:
    """The rows, with the results of their images."""
    pixels = torch.empty((len(decoded), side, side, 3), dtype=torch.uint8, pin_memory=pin_memory)
    array = pixels.numpy()
    index_of: dict[bytes, int] = {}
    image_of: list[int | None] = []
    errors: list[RowError | None] = []
    rows: list[Row] = []
    for row, result in decoded:
        at, error = _put(result, array, index_of) if row.to_compute else (None, row.error)
        image_of.append(at)
        errors.append(error)
        rows.append(row if error is None else row.without_bytes())
    return Batch(tuple(rows), pixels[: len(index_of)], tuple(image_of), tuple(errors), tuple(index_of))


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
