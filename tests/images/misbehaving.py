"""What processes that decode do in tests: pictures of one colour, and harm. Imports nothing heavy, as they don't."""

import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from blip2cli.images.decode import DIGEST_BYTES, FAILED, PIXELS, Reading
from blip2cli.records import ImageRef


def number_of(image: ImageRef) -> int:
    assert image.data is not None
    return int(image.data.split()[1])


@dataclass(frozen=True)
class Misbehaving:
    """Decodes `image N` to the colour N, and does what is to be done before it."""

    reading: Reading
    acts: Mapping[int, Callable[[], object]] = field(default_factory=dict)

    def __call__(self, images: Iterator[ImageRef | None]) -> Iterator[bytes]:
        for image in images:
            assert image is not None and image.data is not None
            act = self.acts.get(number_of(image))
            try:
                if act:
                    act()
            except Exception as error:
                yield FAILED + f"unreadable: {type(error).__name__}".encode()
                continue
            digest = hashlib.blake2b(image.data, digest_size=DIGEST_BYTES).digest()
            shape = (self.reading.side, self.reading.side, 3)
            yield PIXELS + digest + np.full(shape, number_of(image) % 251, np.uint8).tobytes()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave() -> None:
    os._exit(1)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def hang() -> None:
    while True:
        time.sleep(0.01)


def trickle() -> None:
    """Answer from now on so slowly that something always comes, and never all of it."""
    send = socket.socket.send

    def slowly(connection: socket.socket, data: bytes) -> None:
        for byte in data:
            send(connection, bytes([byte]))
            time.sleep(0.05)

    socket.socket.sendall = slowly  # type: ignore[method-assign, assignment]


def fail() -> None:
    raise MemoryError


def fork_a_child_that_lives_on() -> None:
    """Die, and leave a process that has all descriptors of this one."""
    if not os.fork():
        time.sleep(3)
        os._exit(0)
    die()


@dataclass(frozen=True)
class Once:
    """An act that is done by the first process that comes to it, and by no other."""

    act: Callable[[], object]
    marker: Path

    def __call__(self) -> None:
        if first_at(self.marker):
            self.act()


@dataclass(frozen=True)
class WhileSending:
    """An act that is done by the first process that comes to it, when so much of the answer is handed over.

    An answer is two pieces: its length, and its content. `piece` counts from there on, so that 2 is the length of the
    answer to the next item; `part` is the part of the piece that is sent before the act.
    """

    act: Callable[[], object]
    marker: Path
    piece: int
    part: float

    def __call__(self) -> None:
        sendall = socket.socket.sendall
        left = self.piece

        def counted(connection: socket.socket, data: bytes) -> None:
            nonlocal left
            left -= 1
            if left == -1 and first_at(self.marker):
                sendall(connection, data[: int(len(data) * self.part)])
                self.act()
            sendall(connection, data)

        socket.socket.sendall = counted  # type: ignore[method-assign, assignment]


@dataclass(frozen=True)
class Later:
    """An act that is done by the first process that comes to it, some time after it has gone on."""

    act: Callable[[], object]
    marker: Path
    seconds: float

    def __call__(self) -> None:
        if first_at(self.marker):
            threading.Timer(self.seconds, self.act).start()


@dataclass(frozen=True)
class Unborn(Misbehaving):
    """Work of which the first processes die when they are given it, before they have said that they are ready."""

    marker: Path = Path()
    deaths: int = 1

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        if any(first_at(self.marker.with_suffix(f".{number}")) for number in range(self.deaths)):
            die()


def first_at(marker: Path) -> bool:
    """Whether nobody was here before."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
