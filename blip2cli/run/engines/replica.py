"""One replica of the model: a process that asks for rows, and returns their results.

The protocol, over one pipe. The replica sends (READY,) once it has loaded the model;
(PULL,) when it wants rows; (DONE, [(index, outputs)]) for finished rows, in the order in
which it got them; (DRY, PipelineStats) at the end of a stream; (FAILED, exception); and
(ALIVE,) every few seconds, which shows that it was not stopped. It receives (ROWS, rows)
for each pull, without rows at the end of a stream, after which it pulls again; and STOP
at any time.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from blip2cli.host.signals import Stop, ignore
from blip2cli.host.terminal import guard_streams
from blip2cli.model.checkpoint.record import Checkpoint
from blip2cli.records import Result, Row, RowError
from blip2cli.run.pipeline import InProcess
from blip2cli.settings import ModelSettings
from blip2cli.tasks import Task

READY, PULL, DONE, DRY, FAILED, ALIVE = "ready", "pull", "done", "dry", "failed", "alive"
ROWS, STOP = "rows", "stop"

Outputs = tuple[tuple[tuple[Any, ...], "RowError | None", bool, bool], ...]
"""The output rows of one input row: values, error, whether it is left out, and whether it
is empty.

Input rows stay with the sender.
"""

ALIVE_EVERY = 2.0
"""Seconds between two ALIVE messages."""

SEND_EVERY, SEND_ROWS = 0.1, 64
"""Finished rows are sent after so many seconds, or when there are so many rows."""


@dataclass(frozen=True)
class ReplicaSetup:
    """The arguments that a replica is started with; rows come through the pipe."""

    settings: ModelSettings
    task: Task
    checkpoint: Checkpoint
    threads: int | None


class Pipe:
    """The replica's end of the pipe, into which two threads may send."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.sending = threading.Lock()
        self.recv, self.poll = connection.recv, connection.poll

    def send(self, message: tuple[Any, ...]) -> None:
        with self.sending:
            self.connection.send(message)

    def show_life(self) -> None:
        """Send ALIVE every few seconds, until nobody listens."""
        with suppress(OSError):
            while True:
                self.send((ALIVE,))
                time.sleep(ALIVE_EVERY)


class Feed(Stop):
    """The replica's end of the pipe: rows in, results out."""

    def __init__(self, connection: Pipe) -> None:
        self.connection = connection
        self.asked = False
        self.finished: list[tuple[int, Outputs]] = []
        self.sent = time.monotonic()

    def rows(self) -> Iterator[Row]:
        """The rows of one stream, pulled when they are needed."""
        while not self.asked:
            self.flush()
            self.connection.send((PULL,))
            kind, rows = self.connection.recv()
            if kind == STOP:
                self.asked = True
            if not rows:
                return
            yield from rows

    def before(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in super().before(items):
            if self.connection.poll():  # only a stop comes without a request
                self.connection.recv()
                self.asked = True
            yield item

    def give(self, results: Iterator[Result]) -> None:
        """Send the results, a few input rows at a time."""
        outputs: list[tuple[tuple[Any, ...], RowError | None, bool, bool]] = []
        for result in results:
            outputs.append((result.values, result.error, result.left_out, result.empty))
            if result.last:
                self.finished.append((result.row.index, tuple(outputs)))
                outputs = []
            if len(self.finished) >= SEND_ROWS or time.monotonic() - self.sent >= SEND_EVERY:
                self.flush()
        self.flush()

    def flush(self) -> None:
        """Send the finished rows."""
        if self.finished:
            self.connection.send((DONE, self.finished))
            self.finished = []
        self.sent = time.monotonic()


def serve_rows(connection: Any, setup: ReplicaSetup) -> None:
    """The main function of a replica, in its own process; it ends when the pipe is
    closed."""
    ignore()  # the feeder says when to stop
    guard_streams()
    pipe = Pipe(connection)
    threading.Thread(target=pipe.show_life, daemon=True).start()
    try:
        _serve(pipe, setup)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(1)  # nobody is there any more
    except Exception as error:
        logging.getLogger(__name__).debug("the replica failed", exc_info=True)
        pipe.send((FAILED, _portable(error)))


def _serve(connection: Pipe, setup: ReplicaSetup) -> None:
    import torch

    from blip2cli.host.terminal import hush_libraries

    hush_libraries()
    if setup.threads is not None:
        torch.set_num_threads(setup.threads)
    feed = Feed(connection)
    rows = feed.rows()
    pipeline = InProcess(setup.settings, setup.task, setup.checkpoint, keep_bytes=False, rows=rows, read_ahead=False)
    connection.send((READY,))
    while True:
        feed.give(pipeline.results(rows, feed))
        connection.send((DRY, pipeline.stats()))
        if feed.asked:
            connection.recv()  # until the pipe is closed
        rows = feed.rows()


def _portable(error: Exception) -> Exception:
    """The exception, or if it cannot be sent, one with the same message."""
    import pickle

    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
