"""The plan of a run: the job, and everything that follows from it. Each thing is
determined once, here.

The command line, --dry-run, resuming, retrying and the engines take the plan. A wrong
path is reported when the plan is made; what needs torch (devices, checkpoint, columns) is
determined when it is first used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Protocol

from blip2cli import __version__
from blip2cli.errors import UsageError
from blip2cli.host.terminal import show_warning
from blip2cli.outputs import FORMATS, open_output
from blip2cli.outputs.commits import UNKNOWN, Commit, Header
from blip2cli.outputs.formats import Output
from blip2cli.outputs.layout import Layout, carried_names, types_of
from blip2cli.outputs.replacement import swap_in
from blip2cli.outputs.resuming import already_done, finished, settings_of
from blip2cli.outputs.target import (
    Target,
    check_inputs,
    check_output,
    check_places,
    locked_output,
    make_folder,
    target_of,
)
from blip2cli.records import Row
from blip2cli.run.sources import open_input
from blip2cli.settings import Job
from blip2cli.tasks import Task, make_task

if TYPE_CHECKING:
    import torch

    from blip2cli.images.ready import ReadyProcesses
    from blip2cli.model.checkpoint.record import Checkpoint
    from blip2cli.run.kept import KeptRows
    from blip2cli.run.pipeline import Pipeline


class RowSource(Protocol):
    """Where the rows of a plan come from: the job's inputs, or a part of them."""

    def rows(self, start: int = 0, before: str | None = None) -> Iterator[Row]:
        """The rows from the start-th on.

        Raises UsageError if the row before it is not named `before`.
        """

    def count(self) -> int | None:
        """The number of rows; None if it is not known without reading them."""

    def unread(self) -> Counter[str]:
        """Files that are not read, by suffix, as far as the input has been counted or
        read."""

    @property
    def may_wait(self) -> bool:
        """Whether its rows are those of another program, which may take its time."""

    def column_names(self) -> list[str]:
        """The columns that are carried through to the output."""

    def schema(self) -> Any:
        """Their Arrow types."""

    def stretch(self, first: int, stop: int) -> Iterator[Row]:
        """The rows from the first-th on to that before the stop-th, numbered as `rows`
        numbers them."""


@dataclass(frozen=True)
class RowsOfSource:
    """Some rows of a source, or all in another order: the columns and the files are the source's."""

    source: RowSource

    def unread(self) -> Counter[str]:
        return self.source.unread()

    @property
    def may_wait(self) -> bool:
        return self.source.may_wait

    def column_names(self) -> list[str]:
        return self.source.column_names()

    def schema(self) -> Any:
        return self.source.schema()


@dataclass(frozen=True)
class Plan:
    """A job and everything that follows from it.

    Args:
        job: what was asked.
        task: the job's task, which has seen the input's columns.
        source: where the rows come from.
        target: where the output goes, worked out once for the run.
        kept: rows of an earlier output that are copied instead of computed.
    """

    job: Job
    task: Task
    source: RowSource
    target: Target
    kept: KeptRows | None = None

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """The settings that determine the rows: a resumed run must have the same."""
        return self.job.fingerprint()

    @cached_property
    def total(self) -> int | None:
        """The number of input rows; None if it is not known without reading them."""
        return self.source.count()

    @cached_property
    def committed(self) -> Commit:
        """What an earlier run has committed, after which this one continues; read without
        changing anything."""
        if not self.job.output.continues or not self.target.is_begun():
            return Commit()
        return already_done(self.target, self.header(self.carried_types))

    @cached_property
    def finished(self) -> Commit | None:
        """What an earlier run has committed, if nothing is left to do.

        Raises UsageError for a changed input.
        """
        if not self.job.output.continues or self.job.output.update or not self.target.is_there():
            return None
        untyped = dict.fromkeys(self.source.column_names(), UNKNOWN)  # types may take reading all of the input
        done = finished(self.target, self.header(untyped))
        if done is None or (done.errors and self.job.output.retry_errors):
            return None
        self.rows(done)
        return done if self.is_complete(done) else None

    @cached_property
    def carried_types(self) -> dict[str, str]:
        """The input's columns, with their types in words."""
        return types_of(self.source.schema) if self.source.column_names() else {}

    def header(self, carried: dict[str, str], **more: Any) -> Header:
        """What a resumed run must share with the one before, as far as this is known
        before torch is imported."""
        settings = settings_of(self.target, self.job.output, {**self.fingerprint, **more})
        return Header(settings, carried)

    @cached_property
    def devices(self) -> list[torch.device]:
        """The devices of --devices, one for each replica; empty without that option."""
        from blip2cli.model.checkpoint.devices import devices_of

        named = self.job.model.devices
        return [] if named is None else devices_of(named)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The model's checkpoint, downloaded from the hub if necessary.

        Raises CheckpointError.
        """
        return self.find_checkpoint(fetch=True)

    @cached_property
    def layout(self) -> Layout:
        """The columns of the output, and the metadata that goes with them."""
        columns = self.task.columns(self.checkpoint)
        carried = carried_names(self.source.column_names(), columns)
        for name, shown in carried.items():
            if name != shown:
                show_warning(f"the input's column {name} is written as {shown}")
        metadata = {**self.fingerprint, "precision": self.checkpoint.precision, "version": __version__}
        return Layout(carried, columns, cache(self.source.schema), metadata)

    def find_checkpoint(self, fetch: bool) -> Checkpoint:
        """The model's checkpoint, with its ranker if texts are ranked.

        Raises NotCached if one would have to be downloaded, and must not be.
        """
        from blip2cli.model.checkpoint.find import find_checkpoint
        from blip2cli.model.checkpoint.rank import find_ranker

        settings = self.job.model
        if self.devices:
            settings = replace(settings, devices=None, device=str(self.devices[0]))
        checkpoint = find_checkpoint(settings, self.job.kind, fetch)
        if self.job.ranker is None:
            return checkpoint
        return replace(checkpoint, ranker=find_ranker(self.job.ranker, checkpoint, fetch))

    def rows(self, done: Commit) -> Iterator[Row]:
        """The input rows that are left after those of a commit.

        Raises UsageError for a changed input.
        """
        return self.source.rows(done.rows, done.last)

    def is_complete(self, done: Commit) -> bool:
        """Whether a commit holds all input rows, as far as this is known before they are
        read."""
        return done.rows > 0 and self.total is not None and done.rows >= self.total

    def open_output(self) -> Output:
        """The output, ready for rows; incomplete ends of an earlier run are repaired.

        Raises UsageError.
        """
        return open_output(self.target, self.job.output, self.layout, self.fingerprint)

    def open_pipeline(self, rows: Iterator[Row], ready: ReadyProcesses) -> Pipeline:
        """The model, loaded, in this process or in one for each of --devices.

        If the model will be here, processes decode the first images of these rows
        meanwhile, those that are `ready` if there are any. Raises Blip2Error.
        """
        from blip2cli.run.pipeline import InProcess

        if self.checkpoint.caution:
            show_warning(self.checkpoint.caution)
        keep_bytes = self.target.format.copies_images
        if not self.devices:
            read_ahead = not self.source.may_wait
            pipeline: Pipeline = InProcess(
                self.job.model, self.task, self.checkpoint, keep_bytes, rows, read_ahead, ready
            )
        else:
            from blip2cli.run.engines.replicas import Replicas

            pipeline = Replicas(self.job.model, self.task, self.checkpoint, self.devices, keep_bytes=keep_bytes)
        return pipeline if self.kept is None else self.kept.around(pipeline)


def make_plan(job: Job) -> Plan:
    """The plan of a job, without changing its output.

    Raises UsageError if input, output and options do not fit.
    """
    return _plan(job, _target(job))


@contextmanager
def locked_plan(job: Job) -> Iterator[Plan]:
    """The plan of a job that is about to run; its output is locked for other runs.

    Raises UsageError.
    """
    target = _target(job)
    check_places(target, job.output)
    if target.format.index:
        make_folder(target.path.parent)
    with locked_output(target):
        if job.output.continues:
            swap_in(target)  # of a retry that ended too early
        yield _plan(job, target)


def _target(job: Job) -> Target:
    """Where the output goes, which is none of the inputs that are named."""
    target = target_of(job.output, FORMATS)
    check_inputs(target, job, [*job.input.inputs, *job.files_of_options])
    return target


def _plan(job: Job, target: Target) -> Plan:
    check_output(target, job.output, job.task)
    task = make_task(job)
    if target.format.one_caption and task.several_rows:
        raise UsageError(f"--format {target.name} holds one caption for each image", "Give one prompt.")
    if target.format.texts_alone and task.explains:
        raise UsageError(
            f"--explain cannot be used with --format {target.name}, which has no place for maps",
            "Write JSON lines or Parquet.",
        )
    source = open_input(job, task, target.written_folder)
    check_inputs(target, job, source.files)  # files that patterns stand for, too
    return Plan(job, task, source, target)
