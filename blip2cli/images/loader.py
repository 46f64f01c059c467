"""Rows to batches of pixels, with a torch DataLoader whose workers read and decode.

The source is walked once, in this process; workers get only the places of images (or their bytes) and give back
pixels, so rows keep their order and carried columns never travel. A bad image becomes an error in its place. So does
one that kills its worker (a crash in a decoder, the kernel's OOM killer) or takes too long: what the workers had in
hand is then decoded again, each image apart, and new workers are started.
"""

from __future__ import annotations

import hashlib
import logging
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from torch import multiprocessing
from torch.utils.data import DataLoader, Dataset, get_worker_info

from blip2cli.errors import ImageError
from blip2cli.host.processor import cores
from blip2cli.images.decode import Reading, bytes_of, decode
from blip2cli.images.processes import cause, keep_quiet, watchdog
from blip2cli.records import Batch, ImageRef, Row

logger = logging.getLogger(__name__)

FEW = 16
"""Up to this many rows no worker process is started, unless the number of workers is given."""

FATAL = ("crashed", "timeout")
"""Kinds of error of images that a process died of."""


@dataclass(frozen=True)
class Loading:
    """How batches are made.

    Args:
        batch_size: images a batch.
        workers: worker processes; None for as many as there are cores. Without any, nothing bounds an image's time.
        pin_memory: whether pixels come in pinned memory.
        image_timeout: seconds after which an image is given up.
    """

    batch_size: int
    workers: int | None = None
    pin_memory: bool = False
    image_timeout: float = 60.0


@dataclass(frozen=True)
class Pixels:
    """What a worker gives back for a list of images: see Batch."""

    pixels: torch.Tensor
    image_of: tuple[int | None, ...]
    errors: tuple[str | None, ...]
    digests: tuple[bytes, ...]

    def pin_memory(self) -> Pixels:
        return Pixels(self.pixels.pin_memory(), self.image_of, self.errors, self.digests)


Decoded = tuple[bytes, "np.ndarray | str"]
"""A digest of an image's bytes, and its pixels or its error."""


class Images(Dataset[Pixels]):
    """Reads and decodes a list of images at a time; the same bytes twice in one list are decoded once."""

    def __init__(self, reading: Reading, timeout: float) -> None:
        self.reading = reading
        self.timeout = timeout

    def __getitems__(self, images: list[ImageRef | None]) -> Pixels:
        known: dict[bytes, np.ndarray | str] = {}
        decoded = []
        for image in images:
            with watchdog(self.timeout if get_worker_info() else None):
                decoded.append(self.decode(image, known))
        return self.stack(decoded)

    def decode(self, image: ImageRef | None, known: dict[bytes, np.ndarray | str]) -> Decoded:
        """One image, which is put to those known by their digests."""
        if image is None:
            return b"", ""
        key = f"{image.path or image.url} {image.offset}".encode("utf-8", "surrogatepass")
        try:
            data = bytes_of(image)
            key = hashlib.blake2b(data, digest_size=16).digest()
            if key not in known:
                known[key] = decode(data, self.reading)
        except ImageError as error:
            known[key] = str(error)
        return key, known[key]

    def stack(self, decoded: Sequence[Decoded]) -> Pixels:
        """The images of a list as a worker gives them back."""
        good = {digest: value for digest, value in decoded if not isinstance(value, str)}
        place = {digest: at for at, digest in enumerate(good)}
        side = self.reading.side
        pixels = np.empty((len(good), side, side, 3), dtype=np.uint8)
        for at, value in enumerate(good.values()):
            pixels[at] = value
        image_of = tuple(place.get(digest) for digest, _ in decoded)
        errors = tuple(value or None if isinstance(value, str) else None for _, value in decoded)
        return Pixels(torch.from_numpy(pixels), image_of, errors, tuple(good))

    def decode_apart(self, images: Sequence[ImageRef | None]) -> tuple[Pixels, int]:
        """The images, decoded in a process that may die; gives the number of those it died of too."""
        decoded: list[Decoded] = []
        while len(decoded) < len(images):
            decoded += self._until_death(images[len(decoded) :])
        fatal = [value for _, value in decoded if isinstance(value, str) and value.startswith(FATAL)]
        return self.stack(decoded), len(fatal)

    def _until_death(self, images: Sequence[ImageRef | None]) -> Iterator[Decoded]:
        """The images up to the one that the process died of, with what it died of as its error."""
        context = multiprocessing.get_context()
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_send_decoded, args=(theirs, self, images), daemon=True)
        process.start()
        theirs.close()
        for _ in images:
            try:
                yield ours.recv()
            except (EOFError, OSError):
                process.join()
                yield b"", cause(process.exitcode or 0, self.timeout)
                return
        process.join()


class _Sent:
    """Cuts rows into batches, gives their images' places to a DataLoader, and keeps the rows until they are taken."""

    def __init__(self, rows: Iterator[Row], batch_size: int) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.waiting: deque[tuple[Row, ...]] = deque()

    def __iter__(self) -> Iterator[list[ImageRef | None]]:
        while batch := tuple(islice(self.rows, self.batch_size)):
            self.waiting.append(batch)
            yield images_of(batch)

    def take(self, decoded: Pixels) -> Batch:
        """The first rows that wait, with what has come of their images."""
        rows = self.waiting.popleft()
        errors = tuple(row.error or error for row, error in zip(rows, decoded.errors, strict=True))
        return Batch(rows, decoded.pixels, decoded.image_of, errors, decoded.digests)


def load(rows: Iterable[Row], reading: Reading, loading: Loading) -> Iterator[Batch]:
    """Batches of the rows, in order. At most a few batches a worker are read ahead."""
    every = iter(rows)
    first = list(islice(every, FEW))
    workers = loading.workers if loading.workers is not None else cores() if len(first) == FEW else 0
    sent = _Sent(chain(first, every), loading.batch_size)
    images = Images(reading, loading.image_timeout)
    while True:
        try:
            for decoded in _data_loader(images, sent, workers, loading):
                yield sent.take(decoded)
            return
        except Exception as error:
            if "DataLoader worker" not in str(error):
                raise
            logger.warning("%s; its images are decoded again", error)
        culprits = 0
        while sent.waiting:
            decoded, found = images.decode_apart(images_of(sent.waiting[0]))
            culprits += found
            yield sent.take(decoded)
        if not culprits:  # memory, then, or a container's small /dev/shm
            workers = max(1, workers // 2)


def images_of(rows: Sequence[Row]) -> list[ImageRef | None]:
    """Where the rows' images are; None for rows that have an error already."""
    return [None if row.error else row.image for row in rows]


def _data_loader(images: Images, sent: _Sent, workers: int, loading: Loading) -> Iterator[Pixels]:
    loader: DataLoader[Pixels] = DataLoader(
        images,
        batch_sampler=sent,  # asked for nothing but its batches
        num_workers=workers,
        collate_fn=_unchanged,
        pin_memory=loading.pin_memory,
        worker_init_fn=_begin,
    )
    with _quiet_about_children():
        decoded = iter(loader)
    return decoded


@contextmanager
def _quiet_about_children() -> Iterator[None]:
    """Take back the signal handler by which PyTorch raises a worker's death in whatever runs at that moment.

    The DataLoader itself notices within five seconds, where it can be dealt with.
    """
    before = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    try:
        yield
    finally:
        if before is not None and signal.getsignal(signal.SIGCHLD) is not before:
            signal.signal(signal.SIGCHLD, before)


def _begin(_worker: int) -> None:
    keep_quiet()


def _send_decoded(connection: Any, images: Images, places: Sequence[ImageRef | None]) -> None:
    keep_quiet()
    for place in places:
        try:
            with watchdog(images.timeout):
                decoded = images.decode(place, {})
        except Exception as error:
            decoded = b"", f"unreadable: {type(error).__name__}"
        connection.send(decoded)


def _unchanged(decoded: Any) -> Any:
    return decoded
