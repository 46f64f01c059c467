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
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Generic, TypeVar

from blip2cli.errors import Blip2Error
from blip2cli.host.terminal import show_warning, silent_libraries
from blip2cli.images.processes.messages import Work
from blip2cli.images.processes.pool import Pool
from blip2cli.images.processes.process import CannotStart, Death

__all__ = ["Death", "work_through"]

T = TypeVar("T")

LISTS_AHEAD = 2
"""Unfinished lists of items for each process."""


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
    backlog = _Backlog(lists, has_room)
    if workers:
        pool = Pool(work, workers, seconds)
        try:
            yield from _in_processes(pool, backlog)
        except CannotStart as error:
            if pool.ever_started or not optional:
                raise _cannot_decode(error) from None
            show_warning(
                f"cannot start a process that decodes images ({error}); this process decodes them, without time limits"
            )
    yield from _in_this_process(work, backlog)


def _in_processes(pool: Pool[T], backlog: _Backlog[T]) -> Generator[list[bytes | Death]]:
    """The results of all lists.

    Raises CannotStart; the lists without results are then still in the backlog.
    """
    with closing(pool):
        while backlog.top_up(pool):
            results = pool.take()
            backlog.in_hand.popleft()
            yield results


def _in_this_process(work: Work[T], backlog: _Backlog[T]) -> Generator[list[bytes | Death]]:
    """The results of the lists that are left, each worked on when it is asked for."""
    for items in backlog.left():
        with silent_libraries():
            results: list[bytes | Death] = list(work(iter(items)))
        yield results


class _Backlog(Generic[T]):
    """The lists that are not worked through yet: those that a pool has in hand, and the
    rest."""

    def __init__(self, lists: Iterable[Sequence[T]], has_room: Callable[[], bool]) -> None:
        self.rest = iter(lists)
        self.has_room = has_room
        self.in_hand: deque[Sequence[T]] = deque()

    def top_up(self, pool: Pool[T]) -> bool:
        """Send lists to the pool until enough are unfinished; returns whether any are."""
        while len(self.in_hand) < LISTS_AHEAD * pool.workers and (not self.in_hand or self.has_room()):
            items = next(self.rest, None)
            if items is None:
                break
            self.in_hand.append(items)
            pool.submit(items)
        return bool(self.in_hand)

    def left(self) -> Iterator[Sequence[T]]:
        while self.in_hand:
            yield self.in_hand.popleft()
        yield from self.rest


def _cannot_decode(error: CannotStart) -> Blip2Error:
    return Blip2Error(
        f"cannot start a process that decodes images: {error}",
        "Raise the limits on memory, processes and open files, or use --workers 0.",
    )
