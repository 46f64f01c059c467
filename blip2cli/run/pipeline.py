"""The part of the flow from rows to results: images → model → task, in this process or wherever an engine has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from blip2cli.host.signals import Stop
from blip2cli.host.stopwatch import Stopwatch
from blip2cli.images.decode import Reading
from blip2cli.images.loader import Loading, load
from blip2cli.model import load_model
from blip2cli.model.checkpoint import Checkpoint
from blip2cli.records import Result, Row
from blip2cli.settings import ModelSettings
from blip2cli.tasks import Task


@dataclass(frozen=True)
class PipelineStats:
    """What is known of a pipeline's work: seconds of each phase, the batch size begun with, and the one that worked."""

    seconds: dict[str, float]
    started_with: int
    batch_size: int


class Pipeline(Protocol):
    """A loaded model, or several, and the way through them."""

    def results(self, rows: Iterator[Row], stop: Stop) -> Iterator[Result]:
        """The output rows, in input order. Where a stop is asked for, those in hand are finished."""

    def stats(self) -> PipelineStats:
        """What the results took so far; also when the pipeline is closed."""

    def close(self) -> None:
        """Give back what is held."""


class InProcess:
    """The pipeline in this process."""

    def __init__(self, settings: ModelSettings, task: Task, checkpoint: Checkpoint, keep_bytes: bool) -> None:
        """`keep_bytes` says whether rows keep images that came in bytes, for the output."""
        self.settings, self.task, self.checkpoint, self.keep_bytes = settings, task, checkpoint, keep_bytes
        self.model = load_model(checkpoint, settings.images_at_once)
        self.watch = Stopwatch()

    def results(self, rows: Iterator[Row], stop: Stop) -> Iterator[Result]:
        settings, images = self.settings, self.checkpoint.images
        reading = Reading(images.side, settings.exact_pixels, images.fitting)
        on_gpu = self.checkpoint.device.type == "cuda"
        loading = Loading(self.model.batch_size, settings.workers, on_gpu, settings.image_timeout, self.keep_bytes)
        return self.task.results(self.model, stop.before(load(rows, reading, loading)), self.watch)

    def stats(self) -> PipelineStats:
        return PipelineStats(dict(self.watch.seconds), self.model.started_with, self.model.batch_size)

    def close(self) -> None:
        """Nothing is held that does not go with the process."""
