"""blip2 select."""

from __future__ import annotations

from typing import Annotated

import typer

from blip2cli.cli.options import ONLY_OF_RUNS, command
from blip2cli.commands.select.options import SelectOptions
from blip2cli.settings import Job, OutputSettings

Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="RESULTS...", help="Results: files, or a folder of shards.", show_default=False),
]


@command("select", SelectOptions, OutputSettings, argument=Arguments, without=ONLY_OF_RUNS)
def select(job: Job) -> bool:
    """Select rows of results by a condition, or copy their images.

    [bold]blip2 select answers.jsonl --where "answer = 'yes'" --out yes.csv[/bold]
    """
    from blip2cli.commands.select import select as run

    return run(job)
