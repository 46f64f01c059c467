"""One process that decodes, as its parent sees it: started, given items, waited for with
a limit, and killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

from blip2cli.errors import reason
from blip2cli.host.clock import TICK, Clock
from blip2cli.images.processes import worker
from blip2cli.images.processes.messages import END_OF_LIST, LARGEST_RESULT, LENGTH, Work, packed
from blip2cli.records import RowError

T = TypeVar("T")

ITEMS_AHEAD = 4
"""Items of a list that are sent before the result of the first arrives."""

GRACE = 5.0
"""Seconds that a process may take to end once its socket has, or it was killed."""

START_SECONDS = 30.0
"""Seconds that a process may take to start."""

MOST_STARTS = 3
"""Failed starts, one after the other, after which a process is given up."""

START_PAUSE = 0.5
"""Seconds between two starts."""

BUFFER = 1 << 20
"""Bytes that a socket holds, as far as the system allows it."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Environment of the processes: one thread each, because there are as many processes as
cores."""

BOOT = f"""
import signal, sys
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
sys.path[:] = sys.argv[1:]
from {worker.__name__} import serve
serve()
"""
"""What a process runs.

Signals that go to all processes are for the parent, which ends the others.
"""


@dataclass(frozen=True)
class Death:
    """Why there is no result: the item killed two processes, one after the other, or took
    too long twice."""

    error: RowError
    of_no_item: bool = False
    """Whether the item may not be the cause: the kernel kills the process that takes the
    most memory."""


class CannotStart(Exception):
    """No process can be started; the message says why."""


class Died(Exception):
    """A process has died, or was killed because it took too long."""

    def __init__(self, death: Death) -> None:
        super().__init__(str(death.error))
        self.death = death


class Process(Generic[T]):
    """One process and the socket to it. Only one thread uses it."""

    def __init__(self, work: Work[T], seconds: float, closed: threading.Event) -> None:
        self.work, self.seconds, self.closed = work, seconds, closed
        self.running: subprocess.Popen[bytes] | None = None
        self.connection: socket.socket | None = None
        self.clock = Clock()

    def start(self) -> None:
        """Start it, unless it runs. Raises CannotStart."""
        if self.running is not None and self.running.poll() is None:
            return
        for last in range(MOST_STARTS - 1, -1, -1):
            self.end()
            try:
                self._start()
                return
            except (OSError, Died) as error:
                if not last or self.closed.wait(START_PAUSE):
                    raise CannotStart(reason(error)) from None

    def results_of(self, items: Sequence[T]) -> Iterator[bytes]:
        """Send the items, and give their results as they come.

        Raises Died at an item that the process died of.
        """
        unsent = iter(items)
        self.clock.restart()
        for item in islice(unsent, ITEMS_AHEAD):
            self._send((item,), self.seconds)
        for _ in items:
            result = self._receive(self.seconds)
            self.clock.restart()
            for item in islice(unsent, 1):
                self._send((item,), self.seconds)
            yield result
        self._send(END_OF_LIST, self.seconds)

    def end(self) -> None:
        """Kill it, if it runs."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        if self.running is not None:
            self.running.kill()
            with suppress(subprocess.TimeoutExpired):  # the kernel keeps it: a disk does not answer
                self.running.wait(GRACE)
            self.running = None

    def _start(self) -> None:
        self.connection, child_socket = socket.socketpair()
        with child_socket:
            for each in (self.connection, child_socket):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            self.running = subprocess.Popen(
                [sys.executable, "-I", "-c", BOOT, *sys.path],
                stdin=child_socket.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **ONE_THREAD},
            )
        self.connection.settimeout(TICK)
        self.clock.restart()
        self._send((self.work, self.seconds), START_SECONDS)
        self._receive(START_SECONDS)

    def _send(self, content: Any, seconds: float) -> None:
        """Send something, which must be received within the seconds. Raises Died."""
        unsent = packed(content)
        assert self.connection is not None
        while unsent:
            try:
                unsent = unsent[self.connection.send(unsent) :]
            except TimeoutError:
                pass
            except OSError:
                raise Died(self._death()) from None
            self._check_time(seconds)

    def _receive(self, seconds: float) -> bytes:
        """The next result, which must arrive within the seconds. Raises Died."""
        (length,) = LENGTH.unpack(self._read(LENGTH.size, seconds))
        if length > LARGEST_RESULT:
            self._kill()
            raise Died(self._death())
        return self._read(length, seconds)

    def _read(self, length: int, seconds: float) -> bytes:
        data = bytearray(length)
        unread = memoryview(data)
        assert self.connection is not None
        while unread:
            try:
                count = self.connection.recv_into(unread)
            except TimeoutError:
                self._check_time(seconds)
                continue
            except OSError:
                count = 0
            if not count:
                raise Died(self._death())
            unread = unread[count:]
            self._check_time(seconds)
        return bytes(data)

    def _check_time(self, seconds: float) -> None:
        """Raises Died if the time is up, or nobody waits any more."""
        if self.clock.seconds() < seconds and not self.closed.is_set():
            return
        self._kill()
        raise Died(Death(RowError("timeout", f"took longer than {seconds:g} s")))

    def _kill(self) -> None:
        assert self.running is not None
        self.running.kill()

    def _death(self) -> Death:
        """How it died, once its socket is closed."""
        assert self.running is not None
        try:
            exit_code = self.running.wait(GRACE)
        except subprocess.TimeoutExpired:
            return Death(RowError("crashed", "the image decoder gave no answer"), of_no_item=True)
        if exit_code >= 0:
            return Death(RowError("crashed", f"the image decoder ended (exit code {exit_code})"), of_no_item=True)
        with suppress(ValueError):
            name = signal.Signals(-exit_code).name
            return Death(RowError("crashed", f"the image decoder crashed ({name})"), exit_code == -signal.SIGKILL)
        return Death(RowError("crashed", f"the image decoder crashed (signal {-exit_code})"))
