"""blip2 search."""

from __future__ import annotations

from typing import Annotated

import typer

from blip2cli.cli.options import ONLY_OF_RUNS, command
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


@command(
    "search", SearchOptions, ModelSettings, OutputSettings, argument=Arguments, without=(*ONLY_OF_RUNS, "shard_size")
)
def search(job: Job) -> bool:
    """Find the images that best match a text or an image.

    [bold]blip2 search feats.parquet "a red circle" --top-k 5[/bold]
    """
    from blip2cli.commands.search import search as find

    return find(job)
