"""The loader goes on whatever happens to its workers."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from blip2cli.images import loader
from blip2cli.images.decode import Reading
from blip2cli.images.loader import Loading, load
from blip2cli.records import Batch, ImageRef, Row

READING = Reading(8)
Decode = Callable[[bytes, Reading], np.ndarray]


def rows(count: int) -> Iterator[Row]:
    for number in range(count):
        yield Row(number, f"{number}.png", ImageRef(data=f"image {number}".encode()))


def decoded(data: bytes, reading: Reading) -> np.ndarray:
    """A picture of one colour, the number in the data."""
    return np.full((reading.side, reading.side, 3), int(data.split()[1]) % 251, dtype=np.uint8)


@pytest.fixture
def misbehave(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, Callable[[], object]]], None]:
    """Let images of some numbers do something before they are decoded; in worker processes only."""
    parent = os.getpid()

    def install(acts: dict[int, Callable[[], object]]) -> None:
        def decode(data: bytes, reading: Reading) -> np.ndarray:
            act = acts.get(int(data.split()[1]))
            if act and os.getpid() != parent:
                act()
            return decoded(data, reading)

        monkeypatch.setattr(loader, "decode", decode)

    return install


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    while True:
        time.sleep(0.01)


def errors_of(batches: Iterator[Batch], count: int) -> dict[int, str]:
    """Check that every row comes once, in order, with its own pixels; gives the errors by number."""
    errors: dict[int, str] = {}
    numbers = []
    for batch in batches:
        for row, at, error in zip(batch.rows, batch.image_of, batch.errors, strict=True):
            numbers.append(row.index)
            if error is None:
                assert at is not None
                assert (batch.pixels[at] == row.index % 251).all()
            else:
                errors[row.index] = error
                assert at is None
    assert numbers == list(range(count))
    return errors


def test_an_image_that_kills_its_worker_is_an_error_row_and_the_run_goes_on(misbehave: Callable[..., None]) -> None:
    misbehave({5: die, 23: die})
    errors = errors_of(load(rows(40), READING, Loading(4, 2)), 40)
    killed = "crashed: the decoder died of it (SIGKILL)"
    assert errors == {5: killed, 23: killed}


def test_an_image_that_hangs_is_given_up(misbehave: Callable[..., None]) -> None:
    misbehave({7: hang})
    errors = errors_of(load(rows(24), READING, Loading(4, 2, image_timeout=0.5)), 24)
    assert errors == {7: "timeout: took longer than 0.5 s"}


def test_workers_that_die_of_no_image_become_fewer_and_all_images_come(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    data_loader = loader._data_loader

    def starting(images: loader.Images, sent: object, workers: int, loading: Loading) -> Iterator[loader.Pixels]:
        counts.append(workers)
        if workers < 4:
            yield from data_loader(images, sent, 0, loading)  # type: ignore[arg-type]
            return
        yield next(iter(data_loader(images, sent, 0, loading)))  # type: ignore[arg-type]
        raise RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly")

    monkeypatch.setattr(loader, "decode", decoded)
    monkeypatch.setattr(loader, "_data_loader", starting)
    assert errors_of(load(rows(40), READING, Loading(4, 8)), 40) == {}
    assert counts == [8, 4, 2]


def test_what_goes_wrong_in_the_source_is_not_taken_for_a_worker() -> None:
    def broken() -> Iterator[Row]:
        yield from rows(20)
        raise RuntimeError("the manifest is broken")

    with pytest.raises(RuntimeError, match="the manifest is broken"):
        list(load(broken(), READING, Loading(4, 0)))


def test_a_worker_error_of_python_costs_one_image(misbehave: Callable[..., None]) -> None:
    def fail() -> None:
        raise MemoryError

    misbehave({9: fail})
    errors = errors_of(load(rows(24), READING, Loading(4, 2)), 24)
    assert errors == {9: "unreadable: MemoryError"}


def test_the_signal_handler_of_the_caller_stays(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGCHLD)
    list(load(rows(20), READING, Loading(4, 1)))
    assert signal.getsignal(signal.SIGCHLD) is before
