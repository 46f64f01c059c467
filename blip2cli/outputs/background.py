"""An output written by a thread of its own, so that the model never waits for a disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from blip2cli.host.stopwatch import Stopwatch
from blip2cli.outputs.formats import Output
from blip2cli.records import Result

AHEAD = 1024
"""Rows that may wait to be written."""

BYTES_AHEAD = 64 << 20
"""Bytes that these rows may hold before no more are taken."""

EVERY = 0.2
"""Seconds between writes where rows come slowly."""


class BackgroundOutput:
    """Takes rows for a thread that writes what has come together and, every `commit_every` seconds, commits.

    What goes wrong in the thread is raised in the caller's next call.
    """

    def __init__(self, output: Output, commit_every: float) -> None:
        self.output = output
        self.commit_every = commit_every
        self.watch = Stopwatch()
        self._taken: list[Result] = []
        self._held = 0
        self._stopped = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    def write(self, results: Sequence[Result]) -> None:
        """Take rows, the last of which is its input row's last."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_full(AHEAD, BYTES_AHEAD) or self._failure is not None)
            self._raise()
            self._taken += results
            self._held += results[-1].row.held if results else 0
            if self._is_full(AHEAD // 2, BYTES_AHEAD // 2):
                self._changed.notify_all()

    def _is_full(self, rows: int, held: int) -> bool:
        return len(self._taken) >= rows or self._held >= held

    @property
    def seconds(self) -> float:
        """Seconds that writing took."""
        return self.watch.seconds["writing"]

    def __enter__(self) -> BackgroundOutput:
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Write and commit all that was taken."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()
        self._raise()

    def _work(self) -> None:
        try:
            committed = time.monotonic()
            while not self._stopped or self._taken:
                results = self._take()
                with self.watch.phase("writing"):
                    if results:
                        self.output.write(results)
                    if time.monotonic() - committed >= self.commit_every:
                        self.output.commit()
                        committed = time.monotonic()
            with self.watch.phase("writing"):
                self.output.commit()
        except BaseException as error:  # raised again in the thread that asked
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _take(self) -> list[Result]:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._is_full(AHEAD // 2, BYTES_AHEAD // 2), EVERY)
            results, self._taken, self._held = self._taken, [], 0
            self._changed.notify_all()
            return results

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure
