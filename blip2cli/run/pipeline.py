"""The part of the flow from rows to results: images → model → task, in this process or
wherever an engine has it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from blip2cli.host.signals import Stop
from blip2cli.host.stopwatch import Stopwatch
from blip2cli.images.decode import Reading
from blip2cli.images.loader import Loading, load
from blip2cli.model import load_model
from blip2cli.model.checkpoint.load import Checkpoint
from blip2cli.model.loaded import LoadedCheckpoint
from blip2cli.records import Batch, Result, Row
from blip2cli.settings import ModelSettings
from blip2cli.tasks import Task

FIRST_BATCH = 4
"""Images of the first batch on a CPU, so that the first rows are soon there; on a GPU a full batch takes as long."""


@dataclass(frozen=True)
class PipelineStats:
    """Figures of a pipeline's work: seconds of each phase, the first batch size, and the
    one that worked."""

    seconds: dict[str, float]
    started_with: int
    batch_size: int


class Pipeline(Protocol):
    """One or several loaded models, and the steps from rows to results."""

    def results(self, rows: Iterator[Row], stop: Stop) -> Iterator[Result]:
        """The output rows, in input order.

        After a stop request, the current rows are finished.
        """

    def stats(self) -> PipelineStats:
        """The figures so far; also after the pipeline is closed."""

    def close(self) -> None:
        """Free all resources."""


def reading_for(checkpoint: Checkpoint, settings: ModelSettings) -> Reading:
    """How images are read for a checkpoint."""
    images = checkpoint.images
    return Reading(images.side, settings.exact_pixels, images.fitting)


def load_for(
    model: LoadedCheckpoint, rows: Iterable[Row], settings: ModelSettings, keep_bytes: bool = True
) -> Iterator[Batch]:
    """The rows in batches of the size that the model takes. Raises Blip2Error.

    `keep_bytes` says whether rows keep images that came in bytes once they are decoded.
    """
    checkpoint = model.checkpoint
    on_gpu = checkpoint.device.type == "cuda"
    first = None if on_gpu else FIRST_BATCH
    loading = Loading(model.batch_size, settings.workers, on_gpu, settings.image_timeout, keep_bytes, first)
    return load(rows, reading_for(checkpoint, settings), loading)


class InProcess:
    """The pipeline in this process."""

    def __init__(self, settings: ModelSettings, task: Task, checkpoint: Checkpoint, keep_bytes: bool) -> None:
        """`keep_bytes` says whether rows keep images that came in bytes, for the output."""
        self.settings, self.task, self.checkpoint, self.keep_bytes = settings, task, checkpoint, keep_bytes
        self.model = load_model(checkpoint, settings.images_at_once)
        self.watch = Stopwatch()

    def results(self, rows: Iterator[Row], stop: Stop) -> Iterator[Result]:
        batches = load_for(self.model, rows, self.settings, self.keep_bytes)
        return self.task.results(self.model, stop.before(batches), self.watch)

    def stats(self) -> PipelineStats:
        return PipelineStats(dict(self.watch.seconds), self.model.started_with, self.model.batch_size)

    def close(self) -> None:
        """Nothing is held that does not end with the process."""
