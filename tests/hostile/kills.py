"""Loads whose processes are killed at random moments, most of which are those at which pixels are handed over.

`python -m tests.hostile.kills --runs 200` counts the loads that failed, took long, or lost a row.
"""

import argparse
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from functools import partial

from blip2cli.images import loader
from blip2cli.images.decode import Reading
from blip2cli.images.loader import Loading, load
from blip2cli.records import ImageRef, Row
from tests.hostile.watched import descendants
from tests.images.misbehaving import Misbehaving

ROWS = 60
READING = Reading(400)
"""Pixels of which a result is half a megabyte: most of the time goes into handing over."""

LONG = 15.0
"""Seconds after which a load is said to hang; each has SECONDS for an image."""

SECONDS = 2.0


def one_load(rng: random.Random, seen: Counter[str]) -> None:
    """Load ROWS images, and kill one process on the way. Raises AssertionError."""
    over = threading.Event()

    def kill() -> None:
        if not over.wait(rng.uniform(0.05, 0.5)):
            below = descendants(os.getpid())
            number = rng.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
            if below:
                os.kill(rng.choice(below), number)
                seen[number.name] += 1

    rows = (Row(number, "", ImageRef(data=f"image {number}".encode())) for number in range(ROWS))
    killer = threading.Thread(target=kill)
    started = time.monotonic()
    killer.start()
    numbers = []
    for batch in load(rows, READING, 4, Loading(2, image_timeout=SECONDS)):
        for row, place, error in zip(batch.rows, batch.image_of, batch.errors, strict=True):
            assert error is None and place is not None, error
            assert (batch.pixels[place] == row.index).all()
            numbers.append(row.index)
    over.set()
    killer.join()
    assert numbers == list(range(ROWS))
    assert time.monotonic() - started < LONG


def main() -> None:
    """Print how many loads failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, seen = random.Random(given.seed), Counter[str]()
    loader.DecodeImages = partial(Misbehaving, acts={})  # type: ignore[misc, assignment]
    failed = 0
    started = time.monotonic()
    for _ in range(given.runs):
        try:
            one_load(rng, seen)
        except Exception as error:
            failed += 1
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
    left = len(descendants(os.getpid()))
    kills = ", ".join(f"{count} {name}" for name, count in seen.most_common())
    print(f"{failed} of {given.runs} runs failed ({kills}), {left} processes left, {time.monotonic() - started:.0f} s")
    sys.exit(1 if failed or left else 0)


if __name__ == "__main__":
    main()
