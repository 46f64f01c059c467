"""Captions: one text, or several, for every image, with or without a prompt to continue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from blip2cli.errors import UsageError
from blip2cli.records import Batch, Column, Result, Row
from blip2cli.settings import Job, Opt, TaskOptions
from blip2cli.tasks import Needs, Task
from blip2cli.tasks.scores import score_columns
from blip2cli.tasks.template import MissingColumn, Template, empty_column, texts_in_file

if TYPE_CHECKING:
    from blip2cli.host.stopwatch import Stopwatch
    from blip2cli.model.blip2 import Blip2Model
    from blip2cli.model.checkpoint.load import Checkpoint
    from blip2cli.tasks.generation import Prompt, WrittenText

PROMPT = ("--prompt", "-p")

MAX_NEW_TOKENS = 30
"""As in LAVIS's caption evaluations."""


@dataclass(frozen=True)
class CaptionOptions(TaskOptions):
    """The options of `blip2 caption` alone."""

    panel = "Caption"
    prompt: Annotated[
        tuple[str, ...],
        Opt(
            "Text that the caption continues, such as 'a photo of'; {NAME} stands for a column; may be repeated.",
            PROMPT,
            "TEXT",
        ),
    ] = ()
    prompts: Annotated[
        Path | None, Opt("Text file with one prompt on each line, all for every image.", metavar="FILE")
    ] = None
    prompt_column: Annotated[str | None, Opt("Manifest column with the row's prompt.", metavar="NAME")] = None
    prefix: Annotated[
        str,
        Opt(
            "Text put before every caption, such as the trigger word 'sks, '; {NAME} stands for a column.",
            metavar="TEXT",
        ),
    ] = ""
    suffix: Annotated[str, Opt("Text appended to every caption; {NAME} stands for a column.", metavar="TEXT")] = ""
    num_captions: Annotated[
        int, Opt("Captions for each image; with more than 1, the column is `captions`.", metavar="N", min=1, max=1000)
    ] = 1

    def validate(self) -> None:
        if self.prompt_column and (self.prompt or self.prompts):
            raise UsageError("--prompt-column cannot be used with --prompt and --prompts", "Give one of them.")


class CaptionTask(Task):
    """The caption task; a column `caption`, or with several captions an image a list column `captions`."""

    needs = Needs()

    def __init__(self, job: Job) -> None:
        self.options = job.options_as(CaptionOptions)
        self.settings = job.generation
        several = self.options.num_captions
        if several > 1 and not self.settings.samples and self.settings.num_beams < several:
            raise UsageError(
                f"--num-captions {several} needs as many beams, or sampling",
                f"Add --num-beams {several}, or --temperature 1.",
            )
        texts = self.options.prompt + (texts_in_file("--prompts", self.options.prompts) if self.options.prompts else ())
        self.prompts = [Template(text, "--prompt") for text in texts]
        self.around = (Template(self.options.prefix, "--prefix"), Template(self.options.suffix, "--suffix"))
        self.shows_prompt = len(texts) > 1 or bool(self.options.prompts or self.options.prompt_column)
        self.several_rows = len(texts) > 1
        self.rows_each = max(len(texts), 1)
        self.own_text = "prompt" if self.options.prompt_column else None

    def check_columns(self, names: Sequence[str], text_column: str | None) -> None:
        for template in (*self.prompts, *self.around):
            template.check(names)
        if self.options.prompt_column:
            Template(f"{{{self.options.prompt_column}}}", "--prompt-column").check(names)

    def text_of(self, row: Row) -> str | None:
        value = row.columns.get(self.options.prompt_column or "")
        return None if value is None else str(value)

    @property
    def several(self) -> bool:
        """Whether an output row has a list of captions."""
        return self.options.num_captions > 1

    def columns(self, checkpoint: Checkpoint) -> tuple[Column, ...]:
        prompt = (Column("prompt", "string"),) if self.shows_prompt else ()
        text = Column("captions", "strings") if self.several else Column("caption", "string")
        return (*prompt, text, *(score_columns(self.several) if self.settings.scores else ()))

    def results(self, model: Blip2Model, batches: Iterator[Batch], watch: Stopwatch) -> Iterator[Result]:
        from blip2cli.tasks.generation import Generation, results_of, with_length

        settings = with_length(self.settings, MAX_NEW_TOKENS)
        generation = Generation(self._prompts, settings, self.options.num_captions)
        return results_of(generation.rows(model, batches, watch), self._values)

    def _prompts(self, row: Row) -> list[Prompt]:
        from blip2cli.tasks.generation import Prompt

        if self.options.prompt_column:
            value = row.columns.get(self.options.prompt_column)
            if value is None or not str(value).strip():
                return [Prompt(None, (value,), empty_column(self.options.prompt_column, row))]
            return [self._checked(Prompt(str(value), (str(value),)), row)]
        return [self._filled(template, row) for template in self.prompts] or [self._checked(Prompt(None), row)]

    def _filled(self, template: Template, row: Row) -> Prompt:
        from blip2cli.tasks.generation import Prompt

        try:
            text = template.fill(row)
        except MissingColumn as missing:
            return Prompt(None, (None,) if self.shows_prompt else (), missing.error)
        return self._checked(Prompt(text, (text,) if self.shows_prompt else ()), row)

    def _checked(self, prompt: Prompt, row: Row) -> Prompt:
        """The prompt, with an error if a text around the caption cannot be filled."""
        try:
            for template in self.around:
                template.fill(row)
        except MissingColumn as missing:
            return replace(prompt, error=missing.error)
        return prompt

    def _values(self, row: Row, prompt: Prompt, texts: list[WrittenText] | None) -> tuple[Any, ...]:
        from blip2cli.tasks.generation import score_values

        scores = score_values(texts, self.several) if self.settings.scores else ()
        if texts is None:
            return (*prompt.before, None, *scores)
        before, behind = (template.fill(row) for template in self.around)
        captions = [f"{before}{text.text}{behind}" for text in texts]
        return (*prompt.before, captions if self.several else captions[0], *scores)
