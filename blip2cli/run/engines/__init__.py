"""Where a run runs: one file an engine."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from blip2cli.run.summary import Tally
from blip2cli.settings import Job

ENGINES = {"local": "blip2cli.run.engines.local:launch", "ray": "blip2cli.run.engines.ray:launch"}
"""Name → function of a Job that runs it and gives its Tally, or None where --dry-run only shows it."""


def launch(job: Job) -> Tally | None:
    """Run the job with its engine. Raises Blip2Error where it cannot go on."""
    module, _, function = ENGINES[job.engine.engine].partition(":")
    run: Callable[[Job], Tally | None] = getattr(import_module(module), function)
    return run(job)
