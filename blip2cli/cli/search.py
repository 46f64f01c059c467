"""blip2 search."""

from __future__ import annotations

from typing import Annotated

import typer

from blip2cli.cli.options import command
from blip2cli.commands.search.options import SearchOptions
from blip2cli.settings import Job, ModelSettings, OutputSettings

Arguments = Annotated[
    list[str],
    typer.Argument(
        metavar="FEATURES [QUERY...]",
        help="Features that blip2 embed --features itc wrote (a file or a folder), then texts to search for.",
        show_default=False,
    ),
]
WITHOUT = (
    "devices", "device_map",
    "shard_size", "resume", "update", "retry_errors", "commit_every", "existing", "dry_run", "summary",
)  # fmt: skip
"""Options that only runs over collections have."""


@command("search", SearchOptions, ModelSettings, OutputSettings, argument=Arguments, without=WITHOUT)
def search(job: Job) -> None:
    """Find the images that best match a text or an image.

    [bold]blip2 search feats.parquet "a red circle" --top-k 5[/bold]
    """
    from blip2cli.cli.failures import SOME_ERRORS
    from blip2cli.commands.search import search as find

    if not find(job):
        raise typer.Exit(SOME_ERRORS)
