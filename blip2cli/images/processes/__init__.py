"""Processes that read and decode images, and may crash on one. Nothing here knows what an
image is, or imports torch.

A process is a fresh interpreter below this one, at the other end of a socket. Items go
out as pickles; results come back as bytes, which are not unpickled here, as a hostile
image may have taken the process over. There is no shared memory, no lock that two
processes hold, and no descriptor that is passed on: whatever happens to a process affects
only its own socket. A thread for each process sends it work and waits for it. Every wait
has a limit: a process that sends nothing for too long (it hangs, or was stopped) is
killed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import Generic, TypeVar

from blip2cli.errors import Blip2Error
from blip2cli.host.terminal import show_warning, silent_libraries
from blip2cli.images.processes.messages import Work
from blip2cli.images.processes.pool import Pool
from blip2cli.images.processes.process import CannotStart, Death

__all__ = ["Death", "Workload", "work_through"]

T = TypeVar("T")

LISTS_AHEAD = 2
"""Unfinished lists of items for each process."""


class Workload(Generic[T]):
    """Lists of items, and the processes that work on them ahead of whoever takes the
    results.

    Args:
        work: what is done with the items.
        lists: taken some ahead, in the thread that starts this and takes the results.
        pool: the processes that do the work; None for this one, where nothing bounds an item's time.
        optional: whether the work may be done in this process where no other can be started.
        has_room: whether another list may be taken, besides the one that is waited for.
    """

    def __init__(
        self,
        work: Work[T],
        lists: Iterable[Sequence[T]],
        pool: Pool[T] | None,
        optional: bool = False,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self.work, self.rest, self.pool = work, iter(lists), pool
        self.optional, self.has_room = optional, has_room
        self.in_hand: deque[Sequence[T]] = deque()  # sent to the pool, and not taken from it
        self.least_ahead = 0  # unfinished lists, whatever the number of processes

    def start(self, read: bool = True) -> None:
        """Start the processes, and send them the first lists.

        Without `read` no list is taken, which may take long, and the processes only get ready.
        """
        if self.pool is None:
            return
        if read:
            self._top_up(self.pool)
        else:
            self.pool.get_ready()

    def results(self) -> Generator[list[bytes | Death]]:
        """The results for each list, in order. Raises Blip2Error if no process can be started."""
        if self.pool is not None:
            try:
                yield from self._from(self.pool)
            except CannotStart as error:
                if self.pool.ever_started or not self.optional:
                    raise _cannot_decode(error) from None
                show_warning(
                    f"cannot start a process that decodes images ({error}); "
                    "this process decodes them, without time limits"
                )
        while self.in_hand:
            yield self._done_here(self.in_hand.popleft())
        yield from map(self._done_here, self.rest)

    def close(self) -> None:
        """End all processes, whatever they are doing."""
        if self.pool is not None:
            self.pool.close()

    def _from(self, pool: Pool[T]) -> Generator[list[bytes | Death]]:
        """The results of all lists.

        Raises CannotStart; the lists without results are then still in hand.
        """
        while self._top_up(pool):
            results = pool.take()
            self.in_hand.popleft()
            yield results

    def _top_up(self, pool: Pool[T]) -> bool:
        """Send lists to the pool until enough are unfinished; returns whether any are."""
        enough = max(self.least_ahead, LISTS_AHEAD * pool.workers)
        while len(self.in_hand) < enough and (not self.in_hand or self.has_room()):
            items = next(self.rest, None)
            if items is None:
                break
            self.in_hand.append(items)
            pool.submit(items)
        return bool(self.in_hand)

    def _done_here(self, items: Sequence[T]) -> list[bytes | Death]:
        with silent_libraries():
            return list(self.work(iter(items)))


def work_through(
    work: Work[T], lists: Iterable[Sequence[T]], workers: int, seconds: float, optional: bool = False
) -> Generator[list[bytes | Death]]:
    """The results for each list of items, in order.

    Args:
        work: what is done with the items.
        lists: taken some ahead, in this thread.
        workers: how many processes do the work; 0 for this one, where nothing bounds an item's time.
        seconds: after which a process that is still at an item is killed.
        optional: whether the work may be done in this process where no other can be started.

    Raises:
        Blip2Error: no process can be started.
    """
    pool = Pool(work, workers, seconds) if workers else None
    with closing(Workload(work, lists, pool, optional)) as workload:
        yield from workload.results()


def _cannot_decode(error: CannotStart) -> Blip2Error:
    return Blip2Error(
        f"cannot start a process that decodes images: {error}",
        "Raise the limits on memory, processes and open files, or use --workers 0.",
    )
