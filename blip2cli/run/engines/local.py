"""The run in this process."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from blip2cli.host.stopwatch import Stopwatch
from blip2cli.host.terminal import show_plan
from blip2cli.outputs import check_output, finished, make_folder, target_of
from blip2cli.outputs.journal import locked
from blip2cli.outputs.replacement import take_place
from blip2cli.run.summary import Tally, close
from blip2cli.settings import Job
from blip2cli.tasks import Task, open_task

if TYPE_CHECKING:
    from blip2cli.run.pipeline import Start

SOME_ERRORS = 3


def launch(job: Job) -> None:
    """Run the job here. Exits with 3 where some rows of the output carry errors."""
    if job.output.dry_run:
        show(job)
        return
    target = target_of(job.output)
    out = target.out if target else job.output.out
    if target is not None and target.format.layout == "index":
        make_folder(target.out.parent)
    with locked(out):
        check_output(job.output, job.task)
        if target is not None and job.output.resume:
            take_place(target.out)
        task = open_task(job)  # before torch is imported: a wrong path is told at once
        summary = _nothing_left(job, task) or _run(job, task)
    if summary["errors"] or summary["errors_before"]:
        raise typer.Exit(SOME_ERRORS)


def show(job: Job) -> None:
    """Say what the job would do."""
    from blip2cli.host.terminal import hush_libraries
    from blip2cli.run.dry_run import plan

    check_output(job.output, job.task)
    task = open_task(job)
    hush_libraries()
    job, _ = _placed(job)
    show_plan(plan(job, task))


def _nothing_left(job: Job, task: Task) -> dict[str, Any] | None:
    """The summary of a job that an earlier run has finished; None where there is something to do."""
    done = finished(job.output, job.fingerprint())
    if done is None or (done.errors and job.output.retry_errors):
        return None
    task.source.rows(done.rows, done.last)  # which raises where the input has changed
    total = task.source.count()
    return close(job, Tally(done), Stopwatch(), None) if total is not None and done.rows >= total else None


def _run(job: Job, task: Task) -> dict[str, Any]:
    from blip2cli.host.terminal import hush_libraries
    from blip2cli.run.flow import run
    from blip2cli.run.retry import retry_errors

    hush_libraries()
    job, start = _placed(job)
    if job.output.retry_errors:
        retry_errors(job, task, start)
    return run(job, task, start)


def _placed(job: Job) -> tuple[Job, Start]:
    """What makes the job's pipeline, and the job with a device that stands for those of --devices."""
    from blip2cli.run.pipeline import InProcess

    if job.model.devices is None:
        return job, InProcess
    from blip2cli.model.checkpoint import devices_of
    from blip2cli.run.engines.replicas import Replicas

    devices = devices_of(job.model.devices)
    placed = replace(job, model=replace(job.model, devices=None, device=str(devices[0])))
    return placed, lambda job, task, checkpoint: Replicas(job, task, checkpoint, devices)
