"""Captions: one text, or several, for every image, with or without a prompt to go on from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from blip2cli.errors import UsageError
from blip2cli.inputs import ColumnChoice, Sources, open_source
from blip2cli.job import Job, Opt
from blip2cli.records import Batch, Column, Result

if TYPE_CHECKING:
    from blip2cli.model.blip2 import Blip2Model
    from blip2cli.model.checkpoint import Checkpoint
    from blip2cli.stopwatch import Stopwatch
    from blip2cli.tasks.generation import Prompt

MAX_NEW_TOKENS = 30
"""As in LAVIS's caption evaluations."""


@dataclass(frozen=True)
class CaptionOptions:
    """What `blip2 caption` alone is told."""

    panel = "Caption"
    prompt: Annotated[str | None, Opt("Text the caption goes on from, such as 'a photo of'.", metavar="TEXT")] = None
    num_captions: Annotated[int, Opt("Captions an image; above 1 the column is `captions`.", metavar="N", min=1)] = 1

    def validate(self) -> None:
        """What contradicts other settings is found by the task."""


class CaptionTask:
    """The caption task; a column `caption`, or with several captions an image a list column `captions`."""

    def __init__(self, job: Job) -> None:
        self.options: CaptionOptions = job.options
        self.settings = job.generation
        several = self.options.num_captions
        if several > 1 and not self.settings.samples and self.settings.num_beams < several:
            raise UsageError(
                f"--num-captions {several} needs as many beams, or sampling",
                f"Add --num-beams {several}, or --temperature 1.",
            )
        given = job.input
        columns = ColumnChoice(
            given.image_column,
            root=given.image_root,
            allow_remote=given.allow_remote,
            allow_private=given.allow_private,
        )
        self.source: Sources = open_source(given.inputs, columns, given.limit, given.share)

    def columns(self, checkpoint: Checkpoint) -> tuple[Column, ...]:
        return (Column("captions", "strings") if self.options.num_captions > 1 else Column("caption", "string"),)

    def results(self, model: Blip2Model, batches: Iterator[Batch], watch: Stopwatch) -> Iterator[Result]:
        from blip2cli.tasks.generation import Generation, Prompt, with_length

        prompt = Prompt(self.options.prompt)
        settings = with_length(self.settings, MAX_NEW_TOKENS)
        generation = Generation(lambda row: (prompt,), self._values, settings, self.options.num_captions)
        return generation.results(model, batches, watch)

    def _values(self, prompt: Prompt, texts: list[str] | None) -> tuple[Any, ...]:
        return (texts if self.options.num_captions > 1 or texts is None else texts[0],)
