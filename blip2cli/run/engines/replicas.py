"""Several replicas of the model, a process each, fed by one ordered source; their results are put in order again.

Replicas pull rows, so a fast one gets more. What a replica has in hand is remembered until its results are there; if it
dies, those rows go to whoever pulls next, and it is started anew. A row that is in hand at death after death is in the
end tried alone, and becomes an error row if the replica dies of it.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from typing import Any

import torch
from torch import multiprocessing

from blip2cli.errors import Blip2Error
from blip2cli.host.processor import cores
from blip2cli.host.signals import Stop, held_back
from blip2cli.host.terminal import show_warning
from blip2cli.images.processes import Clock
from blip2cli.model.checkpoint import Checkpoint
from blip2cli.records import Result, Row, RowError
from blip2cli.run.engines.replica import DONE, DRY, FAILED, PULL, READY, ROWS, STOP, Outputs, ReplicaSetup, serve
from blip2cli.run.pipeline import PipelineStats
from blip2cli.settings import ModelSettings
from blip2cli.tasks import Task

logger = logging.getLogger(__name__)

MOST_DEATHS = 3
"""Deaths after which a replica is not started again; those of which a row is the proven cause do not count."""

SUSPECT = 2
"""Deaths that a row has been in hand at, from which on it is tried alone."""

PULLED = 64
"""Rows that answer a pull."""

PULLED_BYTES = 64 << 20
"""Bytes that these rows may hold before no more are added."""

HELD = 2048
"""Finished rows that may wait for an earlier one. Beyond, only the replica that has the earliest in hand is fed."""

LOOK = 0.5
"""Seconds between looks at whether the processes live."""

SILENT_SECONDS = 60.0
"""Seconds without a sign of life after which a replica is killed: it was stopped, or hangs where no thread can run."""

START_SECONDS = 900.0
"""The same while it starts and loads its model: the disks of a cluster may take minutes, in which nothing else runs."""

Message = tuple[Any, ...]
GONE = "gone"
"""What stands for a message where the pipe has ended, or something came through that is none."""


@dataclass
class _Replica:
    """A process as the feeder sees it; `hand` holds its unfinished rows, by index, in the order of the input."""

    name: str
    setup: ReplicaSetup
    process: Any = None
    connection: Any = None
    deaths: int = 0
    pulling: bool = False
    ready: bool = False
    alone: bool = False
    hand: dict[int, Row] = field(default_factory=dict)
    stats: PipelineStats | None = None
    silence: Clock = field(default_factory=Clock)
    loaded: bool = False
    silent: bool = False

    def start(self, inbox: Inbox) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA does not live through a fork
        self.connection, theirs = context.Pipe()
        self.pulling = self.ready = self.alone = False
        self.process = context.Process(target=serve, args=(theirs, self.setup), name=self.name)
        resource_tracker.ensure_running()  # which would let the signals through
        with held_back():  # at Ctrl-C, which comes to all processes, a program that starts would show a traceback
            self.process.start()
        theirs.close()
        self.loaded = self.silent = False
        self.silence.restart()
        threading.Thread(target=self._read, args=(inbox, self.process, self.connection), daemon=True).start()

    def _read(self, inbox: Inbox, process: Any, connection: Any) -> None:
        """Put what a process sends into the inbox; in a thread of its own, as half a message may be all that comes."""
        while True:
            try:
                message = connection.recv()
            except Exception:  # whatever is read of a process that dies
                inbox.put((self, process, (GONE,)))
                return
            self.loaded = self.loaded or message == (READY,)
            self.silence.restart()
            inbox.put((self, process, message))

    def kill_if_silent(self) -> None:
        """Kill a process that gives no sign of life, at which its pipe ends."""
        if self.silence.seconds() > (SILENT_SECONDS if self.loaded else START_SECONDS):
            self.silent = True
            self.process.kill()
            hang_up(self.connection)

    def end(self) -> None:
        """Close the pipe, at which the process ends, and see that it does."""
        hang_up(self.connection)
        self.connection.close()
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


Inbox = queue.SimpleQueue[tuple["_Replica", Any, Message]]
"""What replicas say: who, the process that it was then, and the message."""


class Replicas:
    """A pipeline of one replica a device; made when the first has loaded. Raises Blip2Error when none is left."""

    def __init__(
        self,
        settings: ModelSettings,
        task: Task,
        checkpoint: Checkpoint,
        devices: list[torch.device],
        held: int | None = None,
        keep_bytes: bool = True,
    ) -> None:
        """`held` are the cores that the replicas may use, all that there are where it is None.

        `keep_bytes` says whether finished rows keep images that came in bytes, for the output.
        """
        self.keep_bytes = keep_bytes
        share = max(1, (held or cores()) // len(devices))
        workers = share if settings.workers is None else -(-settings.workers // len(devices))
        shared = replace(settings, workers=workers)
        threads = share if checkpoint.device.type == "cpu" else None
        self.replicas = []
        for at, device in enumerate(devices):
            name = f"cpu:{at}" if device.type == "cpu" else str(device)
            setup = ReplicaSetup(shared, task, replace(checkpoint, device=device), threads)
            self.replicas.append(_Replica(name, setup))
        self.known = list(self.replicas)
        self.again: deque[Row] = deque()  # the rows of the dead, to be given to others
        self.stopping = False
        self.suspicion: dict[int, int] = {}
        self.finished: dict[int, tuple[Row, Outputs]] = {}
        self.inbox: Inbox = queue.SimpleQueue()
        self.closed = threading.Event()
        for replica in self.replicas:
            replica.start(self.inbox)
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            while not any(replica.ready for replica in self.replicas):
                self._listen()
        except BaseException:
            self.close()
            raise

    def results(self, rows: Iterator[Row], stop: Stop) -> Iterator[Result]:
        due: deque[int] = deque()  # indices of the rows given out whose results are not yielded yet, in input order
        given = self._noted(stop.before(rows), due)
        while True:
            if stop.asked and not self.stopping:
                self._tell_all_to_stop()
            self._answer(given, due, stop)
            while due and due[0] in self.finished:
                yield from self._taken(due.popleft())
            idle = not any(replica.hand for replica in self.replicas)
            if idle and self.stopping:
                return
            if idle and not self.again and not self._more(given):
                assert not due, "a row was given out and never came back"
                return
            self._listen()

    def stats(self) -> PipelineStats:
        """Seconds as the replicas spent them on average, batch sizes as of the smallest."""
        every = [replica.stats for replica in self.known if replica.stats] or [PipelineStats({}, 1, 1)]
        names = every[0].seconds
        seconds = {name: sum(each.seconds[name] for each in every) / len(every) for name in names}
        return PipelineStats(seconds, every[0].started_with, min(each.batch_size for each in every))

    def close(self) -> None:
        self.closed.set()
        for replica in self.replicas:
            replica.end()

    def _noted(self, rows: Iterator[Row], due: deque[int]) -> Iterator[Row]:
        for row in rows:
            due.append(row.index)
            yield row

    def _more(self, given: Iterator[Row]) -> bool:
        """Whether there are rows beyond those given out; the first of them is put where it is given next."""
        row = next(given, None)
        if row is not None:
            self.again.append(row)
        return row is not None

    def _tell_all_to_stop(self) -> None:
        self.stopping = True
        for replica in self.replicas:
            try:
                replica.connection.send((STOP, ()))
            except OSError:
                continue  # dead, as will be noticed

    def _answer(self, given: Iterator[Row], due: deque[int], stop: Stop) -> None:
        """Give rows to those that pull, where there is room for what comes of them."""
        for replica in self.replicas:
            earliest = bool(due) and due[0] in replica.hand
            held = len(self.finished) >= HELD and not earliest and not self.again
            if not replica.pulling or stop.asked or held:
                continue
            rows = self._rows_for(replica, given)
            if not rows and not replica.hand:
                continue  # it waits: a dead one's rows may come its way
            replica.pulling = False
            replica.hand.update((row.index, row) for row in rows)
            try:
                replica.connection.send((ROWS, rows))
            except OSError:
                continue

    def _rows_for(self, replica: _Replica, given: Iterator[Row]) -> list[Row]:
        """What a pull is answered with; nothing where the replica's stream ends."""
        if replica.alone:
            replica.alone = False
            return []
        if self.again and self.suspicion.get(self.again[0].index, 0) >= SUSPECT:
            if replica.hand:
                return []  # it finishes what it has, and then tries the suspect alone
            replica.alone = True
            return [self.again.popleft()]
        rows: list[Row] = []
        while self.again and len(rows) < PULLED and self.suspicion.get(self.again[0].index, 0) < SUSPECT:
            rows.append(self.again.popleft())
        return rows or _next_rows(given)

    def _watch(self) -> None:
        """See to it that nobody waits for a replica that was stopped; not even this program's other threads."""
        while not self.closed.wait(LOOK):
            for replica in list(self.replicas):
                replica.kill_if_silent()

    def _listen(self) -> None:
        """Take what the replicas send, and see to those that died."""
        with suppress(queue.Empty):
            replica, process, message = self.inbox.get(timeout=LOOK)
            while True:
                if process is replica.process:
                    self._hear(replica, message)
                replica, process, message = self.inbox.get_nowait()

    def _hear(self, replica: _Replica, message: Message) -> None:
        """Note what a replica says."""
        kind, *content = message
        if kind == GONE:
            self._bury(replica)
        elif kind == FAILED:
            raise content[0]
        elif kind == PULL:
            replica.pulling = True
        elif kind == READY:
            replica.ready = True
        elif kind == DONE:
            for index, outputs in content[0]:
                row = replica.hand.pop(index)
                self.finished[index] = (row if self.keep_bytes else row.without_bytes(), outputs)
        elif kind == DRY:
            replica.stats = content[0]
            if self.stopping:
                replica.hand.clear()  # what it had not begun

    def _taken(self, index: int) -> Iterator[Result]:
        row, outputs = self.finished.pop(index)
        self.suspicion.pop(index, None)
        for number, (values, error, left_out) in enumerate(outputs, 1):
            yield Result(row, values, error, number == len(outputs), left_out)

    def _bury(self, replica: _Replica) -> None:
        """Give the rows of a dead replica to the others, and start it anew, unless it has died too often."""
        replica.process.join(timeout=5)
        replica.end()
        cause = "no sign of life" if replica.silent else _cause(replica.process.exitcode)
        hand = list(replica.hand.values())
        replica.hand = {}
        proven = len(hand) == 1 and self.suspicion.get(hand[0].index, 0) >= SUSPECT
        if proven:
            fault = RowError("crashed", f"the model's process died of it ({cause})")
            hand = [replace(hand[0], image=None, error=fault)]
            self.suspicion.pop(hand[0].index)
        else:
            replica.deaths += 1
            for row in hand:
                self.suspicion[row.index] = self.suspicion.get(row.index, 0) + 1
        self.again = deque(sorted([*hand, *self.again], key=lambda row: row.index))
        logger.debug("replica %s died (%s) with %d rows in hand", replica.name, cause, len(hand))
        if self.stopping:
            self.replicas.remove(replica)
            return
        if replica.deaths < MOST_DEATHS:
            show_warning(f"the replica on {replica.name} died ({cause}); it is started again, and its rows repeated")
            replica.start(self.inbox)
            return
        self.replicas.remove(replica)
        if not self.replicas:
            raise Blip2Error(
                f"every replica has died, {replica.name} {replica.deaths} times, last of {cause}",
                "If memory ran out: fewer --devices, a smaller --batch-size or --dtype int8; go on with --resume.",
            )
        show_warning(f"the replica on {replica.name} died {replica.deaths} times ({cause}); going on without it")


def hang_up(connection: Any) -> None:
    """End a pipe on both sides; to close it is not enough while a thread still reads."""
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


def _cause(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"


def _next_rows(given: Iterator[Row]) -> list[Row]:
    """The rows that answer a pull."""
    rows: list[Row] = []
    held = 0
    while len(rows) < PULLED and held < PULLED_BYTES and (row := next(given, None)) is not None:
        rows.append(row)
        held += row.held
    return rows
