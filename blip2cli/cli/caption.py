"""blip2 caption."""

from __future__ import annotations

from blip2cli.cli.options import SHARED, command, run_job
from blip2cli.settings import Job
from blip2cli.tasks.caption import CaptionOptions


@command("caption", CaptionOptions, *SHARED)
def caption(job: Job) -> bool:
    """Write a caption for every image.

    [bold]blip2 caption ./photos --out captions.jsonl[/bold]
    """
    return run_job(job)
