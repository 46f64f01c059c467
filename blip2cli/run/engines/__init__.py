"""Where a run runs: one file an engine."""

from __future__ import annotations

from importlib import import_module

from blip2cli.settings import Job

ENGINES = {"local": "blip2cli.run.engines.local:launch", "ray": "blip2cli.run.engines.ray:launch"}
"""Name → function of a Job that runs it and exits as DESIGN's exit codes say."""


def launch(job: Job) -> None:
    """Run the job with its engine."""
    module, _, function = ENGINES[job.engine.engine].partition(":")
    getattr(import_module(module), function)(job)
