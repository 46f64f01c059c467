"""blip2 vqa."""

from __future__ import annotations

from blip2cli.cli.options import SHARED, command, run_job
from blip2cli.settings import Job
from blip2cli.tasks.vqa import VqaOptions


@command("vqa", VqaOptions, *SHARED)
def vqa(job: Job) -> bool:
    """Answer questions about every image.

    [bold]blip2 vqa ./photos --prompt "how many people are there?" --out answers.parquet[/bold]
    """
    return run_job(job)
