"""The way from rows to results: images → loader → model → task, in this process or wherever an engine has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from blip2cli.host.signals import Stop
from blip2cli.host.stopwatch import Stopwatch
from blip2cli.images.decode import Reading
from blip2cli.images.loader import Loading, load
from blip2cli.model import load_model
from blip2cli.model.checkpoint import Checkpoint
from blip2cli.records import Result, Row
from blip2cli.settings import Job
from blip2cli.tasks import Task


@dataclass(frozen=True)
class Spent:
    """What came to light on the way: seconds of each phase, the batch size begun with, and the one that worked."""

    seconds: dict[str, float]
    started_with: int
    batch_size: int


class Pipeline(Protocol):
    """A loaded model, or several, and the way through them."""

    def results(self, rows: Iterator[Row], stop: Stop) -> Iterator[Result]:
        """The output rows, in input order. Where a stop is asked for, those in hand are finished."""

    def spent(self) -> Spent:
        """What the results took so far."""

    def close(self) -> None:
        """Give back what is held."""


Start = Callable[[Job, Task, Checkpoint], Pipeline]


class InProcess:
    """The pipeline in this process."""

    def __init__(self, job: Job, task: Task, checkpoint: Checkpoint) -> None:
        self.job, self.task, self.checkpoint = job, task, checkpoint
        self.model = load_model(checkpoint, job.model.images_at_once)
        self.watch = Stopwatch()

    def results(self, rows: Iterator[Row], stop: Stop) -> Iterator[Result]:
        settings = self.job.model
        reading = Reading(self.checkpoint.images.side, settings.exact_pixels)
        on_gpu = self.checkpoint.device.type == "cuda"
        loading = Loading(self.model.batch_size, settings.workers, on_gpu, settings.image_timeout)
        return self.task.results(self.model, stop.before(load(rows, reading, loading)), self.watch)

    def spent(self) -> Spent:
        return Spent(dict(self.watch.seconds), self.model.started_with, self.model.batch_size)

    def close(self) -> None:
        """Nothing is held that does not go with the process."""
