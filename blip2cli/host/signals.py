"""SIGINT and SIGTERM: stop after what is in hand, and at once at the second one; or at once at the first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from blip2cli.host.terminal import show_warning

T = TypeVar("T")


class Stop:
    """Whether somebody has asked for the end."""

    asked = False

    def before(self, items: Iterator[T]) -> Iterator[T]:
        """The items, until the end is asked for."""
        while not self.asked:
            try:
                item = next(items)
            except StopIteration:
                return
            yield item


@contextmanager
def stopping() -> Iterator[Stop]:
    """While inside, the first SIGINT or SIGTERM sets `asked`; the second has its usual effect.

    Outside the main thread, which alone may set handlers, nothing is changed.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        stop.asked = True
        for other in before:
            signal.signal(other, signal.SIG_DFL)
        show_warning("stopping behind the rows in hand; once more to leave at once")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminable() -> Iterator[None]:
    """While inside, SIGTERM does what SIGINT does: it raises KeyboardInterrupt. In the main thread alone, as above."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
