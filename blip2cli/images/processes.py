"""Processes that read and decode images, and may crash on one. Nothing here knows what an image is, or imports torch.

A process is a fresh interpreter below this one, at the other end of a socket. Items go out as pickles; results come
back as bytes, which are not unpickled here, as a hostile image may have taken the process over. There is no shared
memory, no lock that two processes hold, and no descriptor that is passed on: whatever happens to a process affects
only its own socket. A thread for each process sends it work and waits for it. Every wait has a limit: a process
that sends nothing for too long (it hangs, or was stopped) is killed.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar

from blip2cli.errors import Blip2Error, reason
from blip2cli.host.terminal import show_warning, silent_libraries
from blip2cli.records import RowError

T = TypeVar("T")

Work = Callable[[Iterator[T]], Iterator[bytes]]
"""From items to their results, one for each, in order. It can be pickled, and raises nothing."""

LISTS_AHEAD = 2
"""Unfinished lists of items for each process."""

ITEMS_AHEAD = 4
"""Items of a list that are sent before the result of the first arrives."""

TICK = 0.25
"""Seconds between checks of the clock and of stop requests, while waiting for a process."""

GRACE = 5.0
"""Seconds that a process may take to end once its socket has, or it was killed."""

START_SECONDS = 30.0
"""Seconds that a process may take to start."""

MOST_STARTS = 3
"""Failed starts, one after the other, after which a process is given up."""

START_PAUSE = 0.5
"""Seconds between two starts."""

LARGEST_RESULT = 1 << 26
"""Bytes. A process that announces a larger result is not sound, and is killed."""

ORPHAN_SECONDS = 30.0
"""Seconds after an item's time at which its process ends by itself, if its parent is dead."""

LENGTH = struct.Struct("<I")
"""What goes before a result: its length in bytes."""

BUFFER = 1 << 20
"""Bytes that a socket holds, as far as the system allows it."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Environment of the processes: one thread each, because there are as many processes as cores."""

BOOT = f"""
import signal, sys
for name in ("SIGINT", "SIGTERM"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
sys.path[:] = sys.argv[1:]
from {__name__} import serve
serve()
"""
"""What a process runs. Signals that go to all processes are for the parent, which ends the others."""


@dataclass(frozen=True)
class Death:
    """Why there is no result: the item killed two processes, one after the other, or took too long twice."""

    error: RowError
    of_no_item: bool = False
    """Whether the item may not be the cause: the kernel kills the process that takes the most memory."""


class CannotStart(Exception):
    """No process can be started; the message says why."""


def work_through(
    work: Work[T],
    lists: Iterable[Sequence[T]],
    workers: int,
    seconds: float,
    optional: bool = False,
    has_room: Callable[[], bool] = lambda: True,
) -> Generator[list[bytes | Death]]:
    """The results for each list of items, in order.

    Args:
        work: what is done with the items.
        lists: taken some ahead, in this thread.
        workers: how many processes do the work; 0 for this one, where nothing bounds an item's time.
        seconds: after which a process that is still at an item is killed.
        optional: whether the work may be done in this process where no other can be started.
        has_room: whether another list may be taken, besides the one that is waited for.

    Raises:
        Blip2Error: no process can be started.
    """
    rest = iter(lists)
    in_hand: deque[Sequence[T]] = deque()
    if workers:
        try:
            with closing(Pool(work, workers, seconds)) as pool:
                while _top_up(pool, rest, in_hand, has_room):
                    results = pool.take()
                    in_hand.popleft()
                    yield results
        except CannotStart as error:
            if pool.ever_started or not optional:
                raise Blip2Error(
                    f"cannot start a process that decodes images: {error}",
                    "Raise the limits on memory, processes and open files, or use --workers 0.",
                ) from None
            show_warning(
                f"cannot start a process that decodes images ({error}); this process decodes them, without time limits"
            )
    for items in _and_then(in_hand, rest):
        with silent_libraries():
            done: list[bytes | Death] = list(work(iter(items)))
        yield done


def _top_up(
    pool: Pool[T], rest: Iterator[Sequence[T]], in_hand: deque[Sequence[T]], has_room: Callable[[], bool]
) -> bool:
    """Send lists until enough are unfinished; returns whether any are."""
    while len(in_hand) < LISTS_AHEAD * pool.workers and (not in_hand or has_room()):
        items = next(rest, None)
        if items is None:
            break
        in_hand.append(items)
        pool.submit(items)
    return bool(in_hand)


def _and_then(in_hand: deque[Sequence[T]], rest: Iterator[Sequence[T]]) -> Iterator[Sequence[T]]:
    while in_hand:
        yield in_hand.popleft()
    yield from rest


@dataclass(eq=False)
class _Job(Generic[T]):
    """A list of items, their results so far, and what a process died of when it had the next item."""

    items: Sequence[T]
    results: list[bytes | Death] = field(default_factory=list)
    death: Death | None = None

    @property
    def finished(self) -> bool:
        return len(self.results) == len(self.items)

    def left(self) -> Sequence[T]:
        """The items to send next: all that are left, or only the item to try again."""
        first = len(self.results)
        return self.items[first : first + 1] if self.death else self.items[first:]


class Pool(Generic[T]):
    """Processes that work on lists of items; they start when there is work, and start again when they die.

    An item that killed a process is tried once more when no other process has work, because memory may have run
    out. An item that took too long is tried once more by the next free process.
    """

    def __init__(self, work: Work[T], workers: int, seconds: float) -> None:
        self.workers = workers  # wanted; those above this number end when they are free
        self.alive = workers
        self.busy = 0
        self.ever_started = False
        self.closed = threading.Event()
        self.failure: Exception | None = None
        self.order: deque[_Job[T]] = deque()  # in which they are taken
        self.waiting: deque[_Job[T]] = deque()
        self.suspects: deque[_Job[T]] = deque()  # whose next item must be tried alone
        self.changed = threading.Condition()
        processes = [_Process(work, seconds, self.closed) for _ in range(workers)]
        self.threads = [threading.Thread(target=self._drive, args=(process,), daemon=True) for process in processes]
        for thread in self.threads:
            thread.start()

    def submit(self, items: Sequence[T]) -> None:
        """Queue a list."""
        job = _Job(items)
        with self.changed:
            self.order.append(job)
            if items:
                self.waiting.append(job)
            self.changed.notify_all()

    def take(self) -> list[bytes | Death]:
        """The results of the earliest list. Raises CannotStart if no process is left to work on it."""
        job = self.order.popleft()
        with self.changed:
            while not job.finished:
                if self.failure is not None:
                    raise self.failure
                self.changed.wait()
        return job.results

    def close(self) -> None:
        """End all processes, whatever they are doing."""
        self.closed.set()
        with self.changed:
            self.changed.notify_all()
        for thread in self.threads:
            thread.join()

    def _drive(self, process: _Process[T]) -> None:
        """Send lists to one process as long as it is wanted."""
        job: _Job[T] | None = None
        try:
            while self._await_work():
                process.start()  # before it takes a list, which others can work on meanwhile
                self.ever_started = True
                if (job := self._next()) is not None:
                    self._give_back(job, self._work_on(job, process))
                    job = None
        except Exception as error:
            if job is not None:
                self._give_back(job, None)
            self._fail(error)
        finally:
            process.end()

    def _await_work(self) -> bool:
        """Wait until there is a list to take; false if this process is not wanted any more."""
        with self.changed:
            while not self.closed.is_set() and self.alive <= self.workers:
                if self._queue():
                    return True
                self.changed.wait()
            self.alive -= 1
        return False

    def _next(self) -> _Job[T] | None:
        """A list to work on, unless others were quicker."""
        with self.changed:
            jobs = self._queue()
            if not jobs or self.alive > self.workers:
                return None
            self.busy += 1
            return jobs.popleft()

    def _queue(self) -> deque[_Job[T]] | None:
        """Where the next list is taken from. A suspect waits for all others to be free, and everything else for it."""
        if self.suspects:
            return None if self.busy else self.suspects
        return self.waiting

    def _work_on(self, job: _Job[T], process: _Process[T]) -> Death | None:
        """Let a process work on the rest of a list; returns how it died, if it did."""
        try:
            for result in process.results_of(job.left()):
                job.results.append(result)
                if job.death is not None and job.death.of_no_item:
                    self._lower(self.workers // 2, job.death.error)
                job.death = None
        except _Died as died:
            process.end()
            return died.death
        return None

    def _give_back(self, job: _Job[T], death: Death | None) -> None:
        """Queue the rest of a list again."""
        with self.changed:
            self.busy -= 1
            if death is not None and job.death is not None:
                job.results.append(death)
                job.death = None
            elif death is not None:
                job.death = death
            if not job.finished:
                alone = job.death is not None and job.death.of_no_item
                (self.suspects if alone else self.waiting).appendleft(job)
            self.changed.notify_all()

    def _lower(self, workers: int, cause: RowError) -> None:
        with self.changed:
            fewer = max(1, workers)
            if fewer < self.workers:
                show_warning(f"a process that decodes images died ({cause}); continuing with {fewer}")
                self.workers = fewer
                self.changed.notify_all()

    def _fail(self, problem: Exception) -> None:
        """Remove one process. An unexpected exception ends everything, and so does a failed start of the last
        one."""
        with self.changed:
            self.alive -= 1
            self.workers = max(1, min(self.workers, self.alive))
            if not self.alive or not isinstance(problem, CannotStart):
                self.failure = problem
            self.changed.notify_all()


class _Died(Exception):
    """A process has died, or was killed because it took too long."""

    def __init__(self, death: Death) -> None:
        super().__init__(str(death.error))
        self.death = death


class _Process(Generic[T]):
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
            except (OSError, _Died) as error:
                if not last or self.closed.wait(START_PAUSE):
                    raise CannotStart(reason(error)) from None

    def results_of(self, items: Sequence[T]) -> Iterator[bytes]:
        """Send the items, and give their results as they come. Raises _Died at an item that the process died of."""
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
        self._send((), self.seconds)

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
        """Send something, which must be received within the seconds. Raises _Died."""
        unsent = memoryview(pickle.dumps(content))
        assert self.connection is not None
        while unsent:
            try:
                unsent = unsent[self.connection.send(unsent) :]
            except TimeoutError:
                pass
            except OSError:
                raise _Died(self._death()) from None
            self._check_time(seconds)

    def _receive(self, seconds: float) -> bytes:
        """The next result, which must arrive within the seconds. Raises _Died."""
        (length,) = LENGTH.unpack(self._read(LENGTH.size, seconds))
        if length > LARGEST_RESULT:
            self._kill()
            raise _Died(self._death())
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
                raise _Died(self._death())
            unread = unread[count:]
            self._check_time(seconds)
        return bytes(data)

    def _check_time(self, seconds: float) -> None:
        """Raises _Died if the time is up, or nobody waits any more."""
        if self.clock.seconds() < seconds and not self.closed.is_set():
            return
        self._kill()
        raise _Died(Death(RowError("timeout", f"took longer than {seconds:g} s")))

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


class Clock:
    """Seconds in which a process was waited for. None pass while all are stopped by Ctrl-Z, or the machine sleeps."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.passed, self.looked = 0.0, time.monotonic()

    def seconds(self) -> float:
        now = time.monotonic()
        self.passed += min(now - self.looked, 2 * TICK)
        self.looked = now
        return self.passed


def serve() -> None:
    """The main function of a process: results for the items that come through its socket, which is its stdin."""
    connection = socket.socket(fileno=os.dup(0))
    keep_quiet()
    incoming = connection.makefile("rb")
    work, seconds = pickle.load(incoming)
    items: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_take_in, args=(incoming, items), daemon=True).start()
    try:
        connection.sendall(LENGTH.pack(0))
        while True:
            for result in work(_one_list(items, seconds)):
                _set_alarm(0)
                connection.sendall(LENGTH.pack(len(result)))
                connection.sendall(result)
    except OSError:
        os._exit(0)  # nobody is there any more


def keep_quiet() -> None:
    """Close stdin, stdout and stderr, to which native libraries write complaints; errors are results here."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nowhere, standard)
    os.close(nowhere)


def _take_in(incoming: Any, items: queue.SimpleQueue[Any]) -> None:
    """Store what arrives, whatever the other thread does; if the parent closes its socket, this process ends."""
    try:
        while True:
            items.put(pickle.load(incoming))
    except EOFError:
        os._exit(0)
    except BaseException:
        os._exit(1)


def _one_list(items: queue.SimpleQueue[Any], seconds: float) -> Iterator[Any]:
    """The items up to the end of a list."""
    while item := items.get():
        _set_alarm(min(seconds, 1e6) + ORPHAN_SECONDS)
        yield item[0]


def _set_alarm(seconds: float) -> None:
    """Let the system end this process after so many seconds; 0 for never."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
