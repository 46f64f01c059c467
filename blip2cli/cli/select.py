"""blip2 select."""

from __future__ import annotations

from typing import Annotated

import typer

from blip2cli.cli.options import command
from blip2cli.commands.select.options import SelectOptions
from blip2cli.settings import Job, OutputSettings

Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="RESULTS...", help="Results: files, or a folder of shards.", show_default=False),
]
WITHOUT = ("resume", "update", "retry_errors", "commit_every", "existing", "dry_run", "summary")
"""Options that only runs over collections have."""


@command("select", SelectOptions, OutputSettings, argument=Arguments, without=WITHOUT)
def select(job: Job) -> None:
    """Select rows of results by a condition, or copy their images.

    [bold]blip2 select answers.jsonl --where "answer = 'yes'" --out yes.csv[/bold]
    """
    from blip2cli.cli.failures import SOME_ERRORS
    from blip2cli.commands.select import select as run

    if not run(job):
        raise typer.Exit(SOME_ERRORS)
