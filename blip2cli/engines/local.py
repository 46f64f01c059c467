"""The run in this process."""

from __future__ import annotations

import typer

from blip2cli.job import Job
from blip2cli.journal import locked
from blip2cli.outputs import check_output
from blip2cli.tasks import open_task

SOME_ERRORS = 3


def launch(job: Job) -> None:
    """Run the job here. Exits with 3 where some rows of the output carry errors."""
    with locked(job.output.out):
        check_output(job.output)
        task = open_task(job)  # before torch is imported: a wrong path is told at once
        from blip2cli.retry import retry_errors, take_place
        from blip2cli.run import run
        from blip2cli.terminal import hush_libraries

        hush_libraries()
        if job.output.out is not None and job.output.resume:
            take_place(job.output.out)
        if job.output.retry_errors:
            retry_errors(job, task)
        summary = run(job, task)
    if summary["errors"] or summary["errors_before"]:
        raise typer.Exit(SOME_ERRORS)
