"""Processes that decode, started while libraries are imported, before there are rows for
them. torch is not needed, and Pillow only once they start."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blip2cli.images.decode import Reading
    from blip2cli.images.processes.pool import Pool
    from blip2cli.records import ImageRef

FEW = 16
"""For fewer rows no process is started, unless the number of workers is given."""


class ReadyProcesses:
    """Processes that were started early, until a loader takes them."""

    def __init__(self) -> None:
        """None at first."""
        self.reading: Reading | None = None
        self.pool: Pool[ImageRef | None] | None = None

    def start(self, reading: Reading, workers: int, seconds: float) -> None:
        """Start so many processes, which read images in this way, and give one up after
        so many seconds."""
        from blip2cli.images.decode import DecodeImages
        from blip2cli.images.processes.pool import Pool

        self.reading, self.pool = reading, Pool(DecodeImages(reading), workers, seconds)
        self.pool.get_ready()

    def take(self, reading: Reading) -> Pool[ImageRef | None] | None:
        """The processes, which are the caller's from now on; None if there are none that
        read images in this way."""
        if reading != self.reading:
            self.close()
        pool, self.pool = self.pool, None
        return pool

    def close(self) -> None:
        """End the processes, unless they were taken."""
        if self.pool is not None:
            self.pool.close()
            self.pool = None
