"""The part of the flow from rows to results: images → model → task, in this process or
wherever an engine has it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from blip2cli.host.signals import Stop
from blip2cli.host.stopwatch import Stopwatch
from blip2cli.images.loader import BatchSizes, Loader, Loading
from blip2cli.images.ready import ReadyProcesses
from blip2cli.model import load_model
from blip2cli.model.checkpoint.record import Checkpoint
from blip2cli.model.loaded import LoadedCheckpoint
from blip2cli.records import Batch, Result, Row
from blip2cli.run.reading import reading_for
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


def loader_for(
    checkpoint: Checkpoint,
    rows: Iterable[Row],
    settings: ModelSettings,
    keep_bytes: bool = True,
    ready: ReadyProcesses | None = None,
) -> Loader:
    """The loader of rows for a checkpoint, which need not be loaded yet.

    `keep_bytes` says whether rows keep images that came in bytes once they are decoded;
    processes that are `ready` decode them.
    """
    on_gpu = checkpoint.device.type == "cuda"
    loading = Loading(settings.workers, on_gpu, settings.image_timeout, keep_bytes)
    return Loader(rows, reading_for(checkpoint.images, settings), loading, ready)


def batch_sizes(model: LoadedCheckpoint) -> BatchSizes:
    """The sizes of the batches that the model takes."""
    on_gpu = model.checkpoint.device.type == "cuda"
    return BatchSizes(model.batch_size, None if on_gpu else FIRST_BATCH)


def load_for(model: LoadedCheckpoint, rows: Iterable[Row], settings: ModelSettings) -> Iterator[Batch]:
    """The rows in batches of the size that the model takes. Raises Blip2Error."""
    with closing(loader_for(model.checkpoint, rows, settings)) as loader:
        yield from loader.batches(batch_sizes(model))


class InProcess:
    """The pipeline in this process.

    While it loads the model, processes start that decode, and decode the first images.
    """

    def __init__(
        self,
        settings: ModelSettings,
        task: Task,
        checkpoint: Checkpoint,
        keep_bytes: bool,
        rows: Iterator[Row],
        read_ahead: bool,
        ready: ReadyProcesses | None = None,
    ) -> None:
        """`keep_bytes` says whether rows keep images that came in bytes, for the output.

        `rows` are those of the first call of `results`, for which processes may be `ready`.
        Unless they are `read_ahead`, none is taken before the model is loaded. Raises
        Blip2Error.
        """
        self.settings, self.task, self.checkpoint, self.keep_bytes = settings, task, checkpoint, keep_bytes
        self.watch = Stopwatch()
        self.loader = self._loader(rows, ready)
        self.begun = True
        try:
            self.loader.start(read_ahead)
            self.model = load_model(checkpoint, settings.images_at_once)
        except BaseException:
            self.loader.close()
            raise

    def results(self, rows: Iterator[Row], stop: Stop) -> Iterator[Result]:
        if not self.begun:
            self.loader = self._loader(rows)
        self.begun = False
        with closing(self.loader):
            batches = self.loader.batches(batch_sizes(self.model))
            yield from self.task.results(self.model, stop.before(batches), self.watch)

    def stats(self) -> PipelineStats:
        return PipelineStats(dict(self.watch.seconds), self.model.started_with, self.model.batch_size)

    def close(self) -> None:
        self.loader.close()

    def _loader(self, rows: Iterator[Row], ready: ReadyProcesses | None = None) -> Loader:
        return loader_for(self.checkpoint, rows, self.settings, self.keep_bytes, ready)
