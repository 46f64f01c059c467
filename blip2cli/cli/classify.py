"""blip2 classify."""

from __future__ import annotations

from blip2cli.cli.options import command, run_job
from blip2cli.settings import EngineSettings, InputSettings, Job, ModelSettings, OutputSettings
from blip2cli.tasks.classify import ClassifyOptions


@command("classify", ClassifyOptions, InputSettings, ModelSettings, OutputSettings, EngineSettings)
def classify(job: Job) -> bool:
    """Say which of several classes every image shows, without training.

    [bold]blip2 classify ./photos --class cat --class dog --out labels.jsonl[/bold]
    """
    return run_job(job)
