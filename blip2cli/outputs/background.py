"""An output written by a thread of its own, so that the model never waits for a disk."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence

from blip2cli.outputs import Output
from blip2cli.records import Result
from blip2cli.stopwatch import Stopwatch

AHEAD = 8
"""Lists of rows that may wait to be written."""


class BackgroundOutput:
    """Hands rows to a thread that writes and, every `commit_every` seconds, commits. Failures come up in the caller."""

    def __init__(self, output: Output, commit_every: float, watch: Stopwatch) -> None:
        self.output = output
        self.committed = output.committed
        self.commit_every = commit_every
        self.watch = watch
        self._queue: queue.Queue[Sequence[Result] | None] = queue.Queue(AHEAD)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    def write(self, results: Sequence[Result]) -> None:
        """Take rows; raises what went wrong with earlier ones."""
        self._raise()
        self._queue.put(results)

    def stop(self) -> None:
        """Write and commit all that was taken."""
        self._queue.put(None)
        self._thread.join()
        self._raise()

    def _work(self) -> None:
        committed = time.monotonic()
        while True:
            results = self._queue.get()
            if self._failure is None:
                try:
                    with self.watch.phase("writing"):
                        if results is not None:
                            self.output.write(results)
                        if results is None or time.monotonic() - committed >= self.commit_every:
                            self.output.commit()
                            committed = time.monotonic()
                except BaseException as error:  # raised again in the thread that asked
                    self._failure = error
            if results is None:
                return

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure
