"""What goes through the socket between a process that decodes and its parent.

To the process: pickles. First (work, seconds); then for each item a tuple that holds it,
and an empty tuple at the end of a list. From the process: the length of each result and
its bytes, which are not unpickled, as a hostile image may have taken the process over; an
empty result says that it has started.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

T = TypeVar("T")

Work = Callable[[Iterator[T]], Iterator[bytes]]
"""From items to their results, one for each, in order.

It can be pickled, and raises nothing.
"""

LENGTH = struct.Struct("<I")
"""What goes before a result: its length in bytes."""

LARGEST_RESULT = 1 << 26
"""Bytes. A process that announces a larger result is not sound, and is killed."""

END_OF_LIST = ()
"""Sent when a list has no more items."""


def packed(content: Any) -> memoryview:
    """A message to a process. Raises whatever keeps its content from being pickled."""
    return memoryview(pickle.dumps(content))


def unpacked(incoming: BinaryIO) -> Any:
    """The next message from the parent. Raises EOFError if it has closed its socket."""
    return pickle.load(incoming)


def send_result(connection: socket.socket, result: bytes) -> None:
    """Send a result to the parent. Raises OSError if it is gone."""
    connection.sendall(LENGTH.pack(len(result)))
    connection.sendall(result)
