"""SIGINT, SIGTERM and SIGHUP: the first lets the current rows finish and the second stops at once; or the first does.

The command line imports this before anything else, so nothing heavy is imported here.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, TypeVar

from blip2cli.errors import Terminated

T = TypeVar("T")

DEMANDS = (signal.SIGINT, signal.SIGTERM)
"""The signals whose second one ends a process at once. A closed terminal may send SIGHUP twice."""

SIGNALS = DEMANDS if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else (*DEMANDS, signal.SIGHUP)
"""The signals that stop a run. With `nohup`, SIGHUP is ignored from the start, and stays so."""

EXIT_CODE = 128 + signal.SIGINT
"""Of a process that ends here because of a signal, as the command line has it and shells do."""


class Stop:
    """Whether a stop was requested."""

    asked = False

    def before(self, items: Iterator[T]) -> Iterator[T]:
        """The items, until a stop is requested."""
        while not self.asked:
            try:
                item = next(items)
            except StopIteration:
                return
            yield item


@contextmanager
def stopping() -> Iterator[Stop]:
    """While inside, the first of SIGNALS sets `asked`; at the second of DEMANDS the process ends at once.

    Outside the main thread, which alone may set handlers, nothing is changed.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        from blip2cli.host.terminal import show_warning

        if not stop.asked:
            stop.asked = True
            show_warning("finishing the current rows; press Ctrl-C again to quit now")

    with _quits_at_second_signal():
        before = {number: signal.signal(number, ask) for number in SIGNALS}
        try:
            yield stop
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _quits_at_second_signal() -> Iterator[None]:
    """Count signals in a thread of its own, as the main thread may be in a long computation; the second ends all.

    Every signal is one byte in a pipe, the first too: begun behind the first, the count could still receive its byte.
    """
    received, sent = os.pipe()
    os.set_blocking(sent, False)
    before = signal.set_wakeup_fd(sent, warn_on_full_buffer=False)
    threading.Thread(target=_quit_at_second, args=(received,), name="signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(sent)  # at which the thread ends


def _quit_at_second(received: int) -> None:
    from blip2cli.host.terminal import remove_progress, show_error

    signals = 0
    while number := os.read(received, 1):
        signals += number[0] in DEMANDS
        if signals == 2:
            threading.Timer(1.0, os._exit, (EXIT_CODE,)).start()  # should nobody read stderr
            remove_progress()
            show_error("interrupted", "Committed rows are kept.")
            os._exit(EXIT_CODE)
    os.close(received)


def interruptible() -> None:
    """From now on SIGTERM and SIGHUP raise Terminated in the main thread, as SIGINT raises KeyboardInterrupt.

    In the interpreter's last moments, when nothing of ours is left to do, all are ignored.
    """
    for number in SIGNALS:
        if number != signal.SIGINT:
            signal.signal(number, _terminate)
    atexit.register(_handle_all, signal.SIG_IGN)  # registered first, so called last


def ending() -> None:
    """From now on the signals end the process quietly: all is done, or told.

    What a handler raises while the interpreter ends would be shown as a traceback.
    """
    _handle_all(_quit)


def told() -> None:
    """From now on, in a process of our own, a further signal ends it quietly: the first has been told.

    A process that imports us keeps its own handlers.
    """
    if signal.getsignal(signal.SIGTERM) is _terminate:
        ending()


def _handle_all(handler: signal.Handlers | Callable[[int, FrameType | None], object]) -> None:
    for number in SIGNALS:
        signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _quit(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(EXIT_CODE)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Put back the handlers of the signals that a library replaces inside. In the main thread alone."""
    before = [(number, signal.getsignal(number)) for number in SIGNALS]
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before:
                signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[None]:
    """While inside, this thread gets none of the signals, and processes start so: they call `ignore` in time."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore() -> None:
    """Ignore the signals in this process, those held back too: whoever started it ends it."""
    _handle_all(signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
