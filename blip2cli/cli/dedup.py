"""blip2 dedup."""

from __future__ import annotations

from typing import Annotated

import typer

from blip2cli.cli.options import command
from blip2cli.commands.dedup.options import DedupOptions
from blip2cli.settings import Job, ModelSettings, OutputSettings

Arguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT...",
        help="Features that blip2 embed wrote (a file or a folder), or images in any form, which are embedded first.",
        show_default=False,
    ),
]
WITHOUT = (
    "devices", "device_map",
    "shard_size", "resume", "update", "retry_errors", "commit_every", "existing", "dry_run", "summary",
)  # fmt: skip
"""Options that only runs over collections have."""


@command("dedup", DedupOptions, ModelSettings, OutputSettings, argument=Arguments, without=WITHOUT)
def dedup(job: Job) -> None:
    """Find duplicates and near-duplicates among images, and which to keep.

    [bold]blip2 dedup feats.parquet --list keep.txt --report groups.html[/bold]
    """
    from blip2cli.cli.failures import SOME_ERRORS
    from blip2cli.commands.dedup import dedup as run

    if not run(job):
        raise typer.Exit(SOME_ERRORS)
