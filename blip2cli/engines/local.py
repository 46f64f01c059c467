"""The run in this process."""

from __future__ import annotations

import typer

from blip2cli.job import Job

SOME_ERRORS = 3


def launch(job: Job) -> None:
    """Run the job here. Exits with 3 where some rows carry errors."""
    from blip2cli.run import run
    from blip2cli.terminal import hush_libraries

    hush_libraries()
    if run(job)["errors"]:
        raise typer.Exit(SOME_ERRORS)
