"""Rows to batches of pixels, with a torch DataLoader whose workers read and decode.

The source is walked once, in this process; workers get only the places of images (or their bytes) and give back
pixels, so rows keep their order and carried columns never travel. A bad image becomes an error in its place.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from blip2cli.errors import ImageError
from blip2cli.images import Reading, decode, read_file
from blip2cli.records import Batch, ImageRef, Row

FEW = 16
"""Up to this many rows no worker process is started, unless the number of workers is given."""


@dataclass(frozen=True)
class Pixels:
    """What a worker gives back for a list of images: see Batch."""

    pixels: torch.Tensor
    image_of: tuple[int | None, ...]
    errors: tuple[str | None, ...]
    digests: tuple[bytes, ...]

    def pin_memory(self) -> Pixels:
        return Pixels(self.pixels.pin_memory(), self.image_of, self.errors, self.digests)


class Images(Dataset[Pixels]):
    """Reads and decodes a list of images at a time; the same bytes twice in one list are decoded once."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading

    def __getitems__(self, images: list[ImageRef | None]) -> Pixels:
        decoded: dict[bytes, np.ndarray | str] = {}
        digests = [self._read(image, decoded) for image in images]
        good = [digest for digest, value in decoded.items() if not isinstance(value, str)]
        place = {digest: at for at, digest in enumerate(good)}
        side = self.reading.side
        stack = np.empty((len(good), side, side, 3), dtype=np.uint8)
        for at, digest in enumerate(good):
            stack[at] = decoded[digest]
        errors = tuple(value if isinstance(value := decoded.get(d), str) else None for d in digests)
        return Pixels(torch.from_numpy(stack), tuple(place.get(d) for d in digests), errors, tuple(good))

    def _read(self, image: ImageRef | None, decoded: dict[bytes, np.ndarray | str]) -> bytes:
        """Put the image, or its error, under the digest of its bytes, and return the digest."""
        if image is None:
            return b""
        key = (image.path or "").encode("utf-8", "surrogatepass")
        try:
            data = image.data if image.data is not None else read_file(image.path or "")
            key = hashlib.blake2b(data, digest_size=16).digest()
            if key not in decoded:
                decoded[key] = decode(data, self.reading)
        except ImageError as error:
            decoded[key] = str(error)
        return key


@dataclass(frozen=True)
class Loading:
    """How batches are made: images a batch, worker processes (None: as many as there are cores), pinned memory."""

    batch_size: int
    workers: int | None = None
    pin_memory: bool = False


def load(rows: Iterable[Row], reading: Reading, loading: Loading) -> Iterator[Batch]:
    """Batches of the rows, in order. At most a few batches a worker are read ahead."""
    every = iter(rows)
    first = list(islice(every, FEW))
    workers = loading.workers if loading.workers is not None else cores() if len(first) == FEW else 0
    waiting: deque[tuple[Row, ...]] = deque()

    def places() -> Iterator[list[ImageRef | None]]:
        remaining = chain(first, every)
        while batch := tuple(islice(remaining, loading.batch_size)):
            waiting.append(batch)
            yield [None if row.error else row.image for row in batch]

    loader: DataLoader[Pixels] = DataLoader(
        Images(reading),
        batch_sampler=_Once(places()),
        num_workers=workers,
        collate_fn=_unchanged,
        pin_memory=loading.pin_memory,
    )
    for decoded in loader:
        batch = waiting.popleft()
        errors = tuple(row.error or error for row, error in zip(batch, decoded.errors, strict=True))
        yield Batch(batch, decoded.pixels, decoded.image_of, errors, decoded.digests)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Once:
    """A batch sampler over an iterator; a DataLoader asks it for nothing but its next batch."""

    def __init__(self, batches: Iterator[list[ImageRef | None]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[ImageRef | None]]:
        return self.batches


def _unchanged(decoded: Any) -> Any:
    return decoded
