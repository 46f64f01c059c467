"""blip2 embed."""

from __future__ import annotations

from blip2cli.cli.options import command, run_job
from blip2cli.settings import EngineSettings, InputSettings, Job, ModelSettings, OutputSettings
from blip2cli.tasks.embed import EmbedOptions


@command("embed", EmbedOptions, InputSettings, ModelSettings, OutputSettings, EngineSettings)
def embed(job: Job) -> bool:
    """Write features of every image, or of texts.

    [bold]blip2 embed ./photos --out feats.parquet[/bold]
    """
    return run_job(job)
