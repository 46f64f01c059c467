"""blip2 dedup."""

from __future__ import annotations

from typing import Annotated

import typer

from blip2cli.cli.options import ONLY_OF_RUNS, command
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


@command(
    "dedup", DedupOptions, ModelSettings, OutputSettings, argument=Arguments, without=(*ONLY_OF_RUNS, "shard_size")
)
def dedup(job: Job) -> bool:
    """Find duplicates and near-duplicates among images, and which to keep.

    [bold]blip2 dedup feats.parquet --list keep.txt --report groups.html[/bold]
    """
    from blip2cli.commands.dedup import dedup as run

    return run(job)
