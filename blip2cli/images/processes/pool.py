"""Several processes that work on lists of items together, in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from blip2cli.host.terminal import show_warning
from blip2cli.images.processes.messages import Work
from blip2cli.images.processes.process import CannotStart, Death, Died, Process
from blip2cli.records import RowError

T = TypeVar("T")


@dataclass(eq=False)
class _Job(Generic[T]):
    """A list of items, their results so far, and what a process died of when it had the
    next item."""

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
    """Processes that work on lists of items; they start when there is work, or when they
    are to get ready for it, and start again when they die.

    An item that killed a process is tried once more when no other process has work,
    because memory may have run out. An item that took too long is tried once more by the
    next free process.
    """

    def __init__(self, work: Work[T], workers: int, seconds: float) -> None:
        self.workers = workers  # wanted; those above this number end when they are free
        self.alive = workers
        self.busy = 0
        self.ever_started = False
        self.early = False  # whether processes start before there is work
        self.closed = threading.Event()
        self.failure: Exception | None = None
        self.order: deque[_Job[T]] = deque()  # in which they are taken
        self.waiting: deque[_Job[T]] = deque()
        self.suspects: deque[_Job[T]] = deque()  # whose next item must be tried alone
        self.changed = threading.Condition()
        processes = [Process(work, seconds, self.closed) for _ in range(workers)]
        self.threads = [threading.Thread(target=self._drive, args=(process,), daemon=True) for process in processes]
        for thread in self.threads:
            thread.start()

    def get_ready(self) -> None:
        """Start the processes before there is a list."""
        with self.changed:
            self.early = True
            self.changed.notify_all()

    def submit(self, items: Sequence[T]) -> None:
        """Queue a list."""
        job = _Job(items)
        with self.changed:
            self.early = False
            self.order.append(job)
            if items:
                self.waiting.append(job)
            self.changed.notify_all()

    def take(self) -> list[bytes | Death]:
        """The results of the earliest list.

        Raises CannotStart if no process is left to work on it.
        """
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

    def _drive(self, process: Process[T]) -> None:
        """Send lists to one process as long as it is wanted."""
        job: _Job[T] | None = None
        try:
            while self._await_work(process):
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

    def _await_work(self, process: Process[T]) -> bool:
        """Wait until there is a list to take, or the process may start early; false if
        it is not wanted any more."""
        with self.changed:
            while not self.closed.is_set() and self.alive <= self.workers:
                if self._queue() or (self.early and process.running is None):
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
        """Where the next list is taken from.

        A suspect waits for all others to be free, and everything else for it.
        """
        if self.suspects:
            return None if self.busy else self.suspects
        return self.waiting

    def _work_on(self, job: _Job[T], process: Process[T]) -> Death | None:
        """Let a process work on the rest of a list; returns how it died, if it did."""
        try:
            for result in process.results_of(job.left()):
                job.results.append(result)
                if job.death is not None and job.death.of_no_item:
                    self._lower(self.workers // 2, job.death.error)
                job.death = None
        except Died as died:
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
        """Remove one process. An unexpected exception ends everything, and so does a
        failed start of the last one."""
        with self.changed:
            self.alive -= 1
            self.workers = max(1, min(self.workers, self.alive))
            if not self.alive or not isinstance(problem, CannotStart):
                self.failure = problem
            self.changed.notify_all()
