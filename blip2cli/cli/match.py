"""blip2 match."""

from __future__ import annotations

from blip2cli.cli.options import command, run_job
from blip2cli.settings import EngineSettings, InputSettings, Job, ModelSettings, OutputSettings
from blip2cli.tasks.match import MatchOptions


@command("match", MatchOptions, InputSettings, ModelSettings, OutputSettings, EngineSettings)
def match(job: Job) -> bool:
    """Score how well every image and its text, or several texts, match.

    [bold]blip2 match captions.parquet --threshold 0.5 --out good.parquet[/bold]
    """
    return run_job(job)
