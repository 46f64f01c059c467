"""What runs in a process that decodes: it takes items through its socket, which is its
stdin, and sends results."""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from blip2cli.images.processes.messages import send_result, unpacked

ORPHAN_SECONDS = 30.0
"""Seconds after an item's time at which its process ends by itself, if its parent is
dead."""


def serve() -> None:
    """The main function of a process."""
    connection = socket.socket(fileno=os.dup(0))
    keep_quiet()
    incoming = connection.makefile("rb")
    work, seconds = unpacked(incoming)
    items: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_take_in, args=(incoming, items), daemon=True).start()
    try:
        send_result(connection, b"")
        while True:
            for result in work(_one_list(items, seconds)):
                _set_alarm(0)
                send_result(connection, result)
    except OSError:
        os._exit(0)  # nobody is there any more


def keep_quiet() -> None:
    """Close stdin, stdout and stderr, to which native libraries write complaints; errors
    are results here."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nowhere, standard)
    os.close(nowhere)


def _take_in(incoming: Any, items: queue.SimpleQueue[Any]) -> None:
    """Store what arrives, whatever the other thread does; if the parent closes its
    socket, this process ends."""
    try:
        while True:
            items.put(unpacked(incoming))
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
