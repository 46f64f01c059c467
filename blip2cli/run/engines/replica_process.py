"""One replica as the feeder sees it: its process, the pipe to it, and the rows that it
has not finished."""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from typing import Any

from torch import multiprocessing

from blip2cli.host.clock import Clock
from blip2cli.host.signals import held_back
from blip2cli.records import Row
from blip2cli.run.engines.replica import READY, ReplicaSetup, serve_rows
from blip2cli.run.pipeline import PipelineStats

SILENT_SECONDS = 60.0
"""Seconds without a message after which a replica is killed: it was stopped, or hangs so
that no thread can run."""

START_SECONDS = 900.0
"""The same while it starts and loads its model: disks of a cluster may take minutes, and
block all threads."""

Message = tuple[Any, ...]
GONE = "gone"
"""Used as a message if the pipe has ended, or something else came through it."""


@dataclass
class ReplicaProcess:
    """A replica and its process, which may be started again.

    Args:
        name: its device.
        setup: the arguments of the process.
        process: the latest process.
        connection: the pipe to it.
        deaths: how many processes have died, unless a known row was the cause.
        pulling: whether it waits for rows.
        ready: whether its model is loaded, as far as the feeder has heard.
        alone: whether it computes a single row, which may be deadly.
        hand: its unfinished rows, by index, in input order.
        stats: the latest figures of its pipeline.
        silence: the time since its last message.
        loaded: whether its model is loaded.
        silent: whether it was killed because it did not answer.
    """

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
        """Start a process, whose messages go to the inbox."""
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self.connection, child_connection = context.Pipe()
        self.pulling = self.ready = self.alone = False
        self.process = context.Process(target=serve_rows, args=(child_connection, self.setup), name=self.name)
        resource_tracker.ensure_running()  # which would let the signals through
        with held_back():  # at Ctrl-C, which comes to all processes, a program that starts would show a traceback
            self.process.start()
        child_connection.close()
        self.loaded = self.silent = False
        self.silence.restart()
        threading.Thread(target=self._read, args=(inbox, self.process, self.connection), daemon=True).start()

    def _read(self, inbox: Inbox, process: Any, connection: Any) -> None:
        """Put the messages of a process into the inbox, in its own thread: reading half a
        message may block."""
        while True:
            try:
                message = connection.recv()
            except Exception:  # anything may be read from a process that dies
                inbox.put((self, process, (GONE,)))
                return
            self.loaded = self.loaded or message == (READY,)
            self.silence.restart()
            inbox.put((self, process, message))

    def kill_if_silent(self) -> None:
        """Kill a process that does not answer; this closes its pipe."""
        if self.silence.seconds() > (SILENT_SECONDS if self.loaded else START_SECONDS):
            self.silent = True
            self.process.kill()
            hang_up(self.connection)

    def end(self) -> None:
        """Close the pipe, so that the process ends, and make sure that it does."""
        hang_up(self.connection)
        self.connection.close()
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def cause_of_death(self) -> str:
        """Why the process died, in words."""
        exit_code = self.process.exitcode
        if self.silent:
            return "no answer"
        if exit_code is not None and exit_code < 0:
            return signal.Signals(-exit_code).name
        return f"exit code {exit_code}"


Inbox = queue.SimpleQueue[tuple["ReplicaProcess", Any, Message]]
"""Messages of replicas: the replica, its process at that time, and the message."""


def hang_up(connection: Any) -> None:
    """Shut a pipe down on both sides; closing it is not enough while a thread still
    reads."""
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)
