"""Where a run runs: one file an engine."""

from __future__ import annotations

from importlib import import_module

from blip2cli.job import Job

ENGINES = {"local": "blip2cli.engines.local:launch"}
"""Name → function of a Job that runs it and exits as DESIGN's exit codes say."""


def launch(job: Job, engine: str = "local") -> None:
    """Run the job with an engine."""
    module, _, function = ENGINES[engine].partition(":")
    getattr(import_module(module), function)(job)
