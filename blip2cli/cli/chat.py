"""blip2 chat."""

from __future__ import annotations

from typing import Annotated

import typer

from blip2cli.cli.options import command
from blip2cli.commands.chat import ChatOptions
from blip2cli.settings import GenerationSettings, Job, ModelSettings

Image = Annotated[
    list[str] | None,
    typer.Argument(metavar="IMAGE", help="Image to talk about: a file or URL.", show_default=False),
]
COLLECTIONS_ONLY = ("devices", "batch_size", "workers", "image_timeout", "scores")


@command("chat", ChatOptions, ModelSettings, GenerationSettings, argument=Image, without=COLLECTIONS_ONLY)
def chat(job: Job) -> bool:
    """Ask questions about an image, in a conversation on a terminal or from stdin.

    [bold]blip2 chat photo.jpg[/bold]
    """
    from blip2cli.commands.chat import converse

    return not converse(job)
