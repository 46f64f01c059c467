"""Several replicas of the model, one process each, fed by one ordered source; their
results are put in order again.

Replicas pull rows, so a fast one gets more. The unfinished rows of a replica are
remembered until their results arrive; if it dies, those rows go to the replica that pulls
next, and it is started again. A row that was unfinished at several deaths is tried alone,
and becomes an error row if the replica crashes again. While many rows wait for those of a
slow replica, others compute these too, and the first result counts.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import torch

from blip2cli.errors import Blip2Error
from blip2cli.host.processor import cores
from blip2cli.host.signals import Stop
from blip2cli.host.terminal import show_warning
from blip2cli.model.checkpoint.record import Checkpoint
from blip2cli.records import Result, Row, RowError
from blip2cli.run.engines.replica import DONE, DRY, FAILED, PULL, READY, ROWS, STOP, Outputs, ReplicaSetup
from blip2cli.run.engines.replica_process import GONE, Inbox, Message, ReplicaProcess
from blip2cli.run.pipeline import PipelineStats
from blip2cli.settings import ModelSettings
from blip2cli.tasks import Task

logger = logging.getLogger(__name__)

MOST_DEATHS = 3
"""Deaths after which a replica is not started again; deaths caused by a known row do not
count."""

SUSPECT = 2
"""Deaths with a row unfinished, after which the row is tried alone."""

PULLED = 64
"""Rows that answer a pull."""

PULLED_BYTES = 64 << 20
"""Bytes of these rows at which no more are added."""

HELD = 2048
"""Finished rows that may wait for an earlier one. Above this, only replicas that have the
earliest row get new ones; the others get rows that a slow one has not finished.
"""

LOOK = 0.5
"""Seconds between checks whether the processes live."""


class Replicas:
    """A pipeline with one replica for each device; ready when the first has loaded.

    Raises Blip2Error.
    """

    def __init__(
        self,
        settings: ModelSettings,
        task: Task,
        checkpoint: Checkpoint,
        devices: list[torch.device],
        held: int | None = None,
        keep_bytes: bool = True,
    ) -> None:
        """`held` are the cores that the replicas may use; None for all.

        `keep_bytes` says whether finished rows keep images that came in bytes, for the
        output.
        """
        self.keep_bytes = keep_bytes
        share = max(1, (held or cores()) // len(devices))
        self.replicas = _replicas_on(devices, settings, task, checkpoint, share)
        self.known = list(self.replicas)
        self.again: deque[Row] = deque()  # rows of dead replicas, to be given to others
        self.stopping = False
        self.suspicion: dict[int, int] = {}
        self.finished: dict[int, tuple[Row, Outputs]] = {}
        self.due: deque[int] = deque()  # rows given out whose results are not yielded yet, in input order
        self.unfinished: dict[int, ReplicaProcess] = {}  # rows in the hands of replicas → the first to get it
        self.inbox: Inbox = queue.SimpleQueue()
        self.closed = threading.Event()
        try:
            for replica in self.replicas:
                replica.start(self.inbox)
            threading.Thread(target=self._watch, daemon=True).start()
            while not any(replica.ready for replica in self.replicas):
                self._listen()
        except BaseException:
            self.close()
            raise

    def results(self, rows: Iterator[Row], stop: Stop) -> Iterator[Result]:
        due = self.due
        source_rows = self._noted(stop.before(rows))
        while True:
            if stop.asked and not self.stopping:
                self._tell_all_to_stop()
            self._answer(source_rows, stop)
            while due and due[0] in self.finished:
                yield from self._results_of(due.popleft())
            if not self.unfinished and self.stopping:
                return
            if not self.unfinished and not self.again and not self._more(source_rows):
                assert not due, "a row was given out and never came back"
                return
            self._listen()

    def stats(self) -> PipelineStats:
        """The average seconds of the replicas, and the smallest of their batch sizes."""
        all_stats = [replica.stats for replica in self.known if replica.stats] or [PipelineStats({}, 1, 1)]
        names = dict.fromkeys(name for stats in all_stats for name in stats.seconds)
        seconds = {name: sum(stats.seconds.get(name, 0.0) for stats in all_stats) / len(all_stats) for name in names}
        return PipelineStats(seconds, all_stats[0].started_with, min(stats.batch_size for stats in all_stats))

    def close(self) -> None:
        """End all processes.

        Where this is interrupted, kill them: at its exit Python waits for those that
        live.
        """
        self.closed.set()
        started = [replica for replica in self.replicas if replica.process is not None]
        try:
            for replica in started:
                replica.end()
        except BaseException:
            for replica in started:
                replica.process.kill()
            raise

    def _noted(self, rows: Iterator[Row]) -> Iterator[Row]:
        for row in rows:
            self.due.append(row.index)
            yield row

    def _more(self, source_rows: Iterator[Row]) -> bool:
        """Whether there are more rows; the next one is put back so that it is given out
        first."""
        row = next(source_rows, None)
        if row is not None:
            self.again.append(row)
        return row is not None

    def _tell_all_to_stop(self) -> None:
        self.stopping = True
        for replica in self.replicas:
            try:
                replica.connection.send((STOP, ()))
            except OSError:
                continue  # dead, which will be noticed

    def _answer(self, source_rows: Iterator[Row], stop: Stop) -> None:
        """Give rows to the replicas that pull: new ones if there is room for their
        results."""
        for replica in self.replicas:
            if not replica.pulling or stop.asked:
                continue
            is_full = self._waits_for_another(replica)
            rows = self._rows_of_slow_replica() if is_full else self._rows_for(replica, source_rows)
            if not rows and (is_full or not replica.hand):
                continue  # it waits: it may get the rows of a dead replica
            replica.pulling = False
            for row in rows:
                replica.hand[row.index] = row
                self.unfinished.setdefault(row.index, replica)
            try:
                replica.connection.send((ROWS, rows))
            except OSError:
                continue

    def _rows_for(self, replica: ReplicaProcess, source_rows: Iterator[Row]) -> list[Row]:
        """The answer to a pull; no rows if the replica's stream ends."""
        if replica.alone:
            replica.alone = False
            return []
        if self.again and self.suspicion.get(self.again[0].index, 0) >= SUSPECT:
            if replica.hand:
                return []  # it finishes its rows, and then tries the suspect alone
            replica.alone = True
            return [self.again.popleft()]
        rows: list[Row] = []
        while self.again and len(rows) < PULLED and self.suspicion.get(self.again[0].index, 0) < SUSPECT:
            rows.append(self.again.popleft())
        return rows or _next_rows(source_rows)

    def _waits_for_another(self, replica: ReplicaProcess) -> bool:
        """Whether so many rows wait for one that this replica does not have that it gets
        no new ones."""
        if len(self.finished) < HELD or self.again or not self.due:
            return False
        return self.due[0] in self.unfinished and self.due[0] not in replica.hand

    def _rows_of_slow_replica(self) -> list[Row]:
        """Unfinished rows of the replica that all others wait for, but those that another
        has too."""
        slow = self.unfinished[self.due[0]]
        others = [replica.hand for replica in self.replicas if replica is not slow]
        rows: list[Row] = []
        for index, row in slow.hand.items():
            if len(rows) == PULLED or index in self.suspicion:
                break
            if index in self.unfinished and not any(index in hand for hand in others):
                rows.append(row)
        return rows

    def _watch(self) -> None:
        """Kill replicas that were stopped, so that nothing waits for them, not even other
        threads of this program."""
        while not self.closed.wait(LOOK):
            for replica in list(self.replicas):
                replica.kill_if_silent()

    def _listen(self) -> None:
        """Process the messages of the replicas, and replace those that died."""
        with suppress(queue.Empty):
            replica, process, message = self.inbox.get(timeout=LOOK)
            while True:
                if process is replica.process:
                    self._hear(replica, message)
                replica, process, message = self.inbox.get_nowait()

    def _hear(self, replica: ReplicaProcess, message: Message) -> None:
        """Process a message of a replica."""
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
                if self.unfinished.pop(index, None):  # unless another replica was faster
                    self.finished[index] = (row if self.keep_bytes else row.without_bytes(), outputs)
        elif kind == DRY:
            replica.stats = content[0]
            if self.stopping:
                self._unfinished_of(replica)  # rows that it had not started

    def _results_of(self, index: int) -> Iterator[Result]:
        row, outputs = self.finished.pop(index)
        self.suspicion.pop(index, None)
        for number, (values, error, left_out, empty) in enumerate(outputs, 1):
            yield Result(row, values, error, number == len(outputs), left_out, empty)

    def _unfinished_of(self, replica: ReplicaProcess) -> list[Row]:
        """Take a replica's rows away from it; returns those that are not finished."""
        hand, replica.hand = replica.hand, {}
        rows = [row for index, row in hand.items() if index in self.unfinished]
        for row in rows:
            another = next((other for other in self.replicas if row.index in other.hand), None)
            if another is None:
                del self.unfinished[row.index]
            else:
                self.unfinished[row.index] = another
        return rows

    def _bury(self, replica: ReplicaProcess) -> None:
        """Give the rows of a dead replica to the others, and start it again, unless it
        has died too often."""
        replica.process.join(timeout=5)
        replica.end()
        cause = replica.cause_of_death()
        hand = self._unfinished_of(replica)
        proven = len(hand) == 1 and self.suspicion.get(hand[0].index, 0) >= SUSPECT
        if proven:
            fault = RowError("crashed", f"the model's process crashed on this row ({cause})")
            hand = [replace(hand[0], image=None, error=fault)]
            self.suspicion.pop(hand[0].index)
        else:
            replica.deaths += 1
            for row in hand:
                self.suspicion[row.index] = self.suspicion.get(row.index, 0) + 1
        lost = [row for row in hand if row.index not in self.unfinished]
        self.again = deque(sorted([*lost, *self.again], key=lambda row: row.index))
        logger.debug("replica %s died (%s) with %d rows unfinished", replica.name, cause, len(hand))
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
                f"every replica has died; {replica.name} died {replica.deaths} times, at last with {cause}",
                "If memory ran out, use a smaller --batch-size, fewer --devices or --dtype int8, with --resume.",
            )
        show_warning(f"the replica on {replica.name} died {replica.deaths} times ({cause}); continuing without it")


def _replicas_on(
    devices: list[torch.device], settings: ModelSettings, task: Task, checkpoint: Checkpoint, share: int
) -> list[ReplicaProcess]:
    """A replica for each device, none of them started; `share` is the number of cores for
    each."""
    workers = share if settings.workers is None else -(-settings.workers // len(devices))
    settings = replace(settings, workers=workers)
    threads = share if checkpoint.device.type == "cpu" else None
    replicas = []
    for number, device in enumerate(devices):
        name = f"cpu:{number}" if device.type == "cpu" else str(device)
        setup = ReplicaSetup(settings, task, checkpoint.on(device), threads)
        replicas.append(ReplicaProcess(name, setup))
    return replicas


def _next_rows(source_rows: Iterator[Row]) -> list[Row]:
    """The rows that answer a pull."""
    rows: list[Row] = []
    held_bytes = 0
    while len(rows) < PULLED and held_bytes < PULLED_BYTES and (row := next(source_rows, None)) is not None:
        rows.append(row)
        held_bytes += row.held
    return rows
