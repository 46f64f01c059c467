"""Engines, which decide where a run is computed: one file for each engine."""

from __future__ import annotations

from collections.abc import Callable

from blip2cli.host.imports import load_object
from blip2cli.run.feature_input import with_features
from blip2cli.run.summary import Tally
from blip2cli.settings import Job

ENGINES = {"local": "blip2cli.run.engines.local:launch", "ray": "blip2cli.run.engines.ray:launch"}
"""Name → function of a Job that runs it and gives its Tally, or None where --dry-run only
shows it."""


def launch(job: Job) -> Tally | None:
    """Run the job with its engine. Raises Blip2Error if it cannot continue."""
    run: Callable[[Job], Tally | None] = load_object(ENGINES[job.engine.engine])
    return run(with_features(job))
