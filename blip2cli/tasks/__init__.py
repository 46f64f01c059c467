"""What is asked of the model, and which columns come out: one file a task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from blip2cli.records import Batch, Column, Result

if TYPE_CHECKING:
    from blip2cli.host.stopwatch import Stopwatch
    from blip2cli.inputs import Sources
    from blip2cli.model.checkpoint import Checkpoint
    from blip2cli.settings import Job

TASKS = {
    "caption": "blip2cli.tasks.caption:CaptionTask",
    "vqa": "blip2cli.tasks.vqa:VqaTask",
    "embed": "blip2cli.tasks.embed:EmbedTask",
    "match": "blip2cli.tasks.match:MatchTask",
}
"""Name → class. A class is made from (Job), which also opens its source and so checks the input."""


class Task(Protocol):
    """One way to use the model."""

    source: Sources

    def columns(self, checkpoint: Checkpoint) -> tuple[Column, ...]:
        """The columns that the task adds, from what is known of a checkpoint before it is loaded."""

    def results(self, model: Any, batches: Iterator[Batch], watch: Stopwatch) -> Iterator[Result]:
        """The output rows, in input order. Errors of single rows are rows. The model is of the kind the job needs."""


def source_of(job: Job, inputs: Sequence[Any], text: str | None = None, images: bool = True) -> Sources:
    """The job's inputs, opened. With a `text` manifests must have a column of that name; without `images` none is read.

    The metadata.jsonl that the job itself writes is no input. Raises UsageError.
    """
    from blip2cli.inputs import ColumnChoice, open_source

    given, out = job.input, job.output.out
    columns = ColumnChoice(
        given.image_column,
        text,
        text_required=text is not None,
        image_required=images,
        root=given.image_root,
        allow_remote=given.allow_remote,
        allow_private=given.allow_private,
        encoding=given.encoding,
        written=str(out) if out is not None and job.output.format == "imagefolder" else None,
    )
    return open_source(inputs, columns, given.limit, given.share)


def open_task(job: Job) -> Task:
    """The task of a job, with its source opened. Raises UsageError where the input is not as it must be."""
    module, _, cls = TASKS[job.task].partition(":")
    make: Any = getattr(import_module(module), cls)
    task: Task = make(job)
    job.check_apart([getattr(part, "name", None) for part in task.source.parts])  # files that patterns stand for, too
    return task
