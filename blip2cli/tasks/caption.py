"""Captions: one text, or several, for every image, with or without a prompt to continue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from blip2cli.errors import UsageError
from blip2cli.inputs.cells import NotTexts, text_in, texts_in
from blip2cli.records import Batch, Column, Result, Row
from blip2cli.settings import DEFAULT_RETRIEVAL_MODEL, Job, ModelSettings, Opt, TaskOptions
from blip2cli.settings.numbers import check_score
from blip2cli.tasks import Needs, Task
from blip2cli.tasks.best import Ranking
from blip2cli.tasks.explain import Explain, ExplainWords, MapColumns, explained
from blip2cli.tasks.scores import score_columns
from blip2cli.tasks.template import MissingColumn, Template, check_column, empty_column, texts_in_file

if TYPE_CHECKING:
    from blip2cli.host.stopwatch import Stopwatch
    from blip2cli.model.blip2 import Blip2Model
    from blip2cli.model.checkpoint.record import Checkpoint
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
            "Text put before every caption, such as a trigger word; {NAME} stands for a column. "
            "A space is added where two words would run together.",
            metavar="TEXT",
        ),
    ] = ""
    suffix: Annotated[str, Opt("Text appended to every caption; {NAME} stands for a column.", metavar="TEXT")] = ""
    num_captions: Annotated[
        int, Opt("Captions for each image; with more than 1, the column is `captions`.", metavar="N", min=1, max=1000)
    ] = 1
    rank_by: Annotated[
        Literal["itm", "itc"] | None,
        Opt("Rank each image's captions by how well they match it, best first, and add their scores."),
    ] = None
    rank_model: Annotated[
        str | None,
        Opt("Retrieval checkpoint that ranks: hub id, local folder, or 'tiny'. [default: tiny's own]", metavar="MODEL"),
    ] = None
    rank_revision: Annotated[str | None, Opt("Branch, tag or commit of --rank-model on the hub.", metavar="REV")] = None
    keep: Annotated[
        int | None,
        Opt("Keep the best K captions; with 1, the column is `caption`. [default: all]", metavar="K", min=1),
    ] = None
    threshold: Annotated[float | None, Opt("Keep only captions that score at least this.", metavar="X")] = None
    also_column: Annotated[
        tuple[str, ...],
        Opt("Manifest column with captions that compete, such as alt texts; may be repeated.", metavar="NAME"),
    ] = ()
    explain: Explain = False
    explain_words: ExplainWords = False

    def validate(self) -> None:
        if self.explain or self.explain_words:
            self._check_explaining()
        if self.prompt_column and (self.prompt or self.prompts):
            raise UsageError("--prompt-column cannot be used with --prompt and --prompts", "Give one of them.")
        if self.rank_by is None:
            self._check_nothing_ranked()
        else:
            self._check_ranking()

    def _check_explaining(self) -> None:
        if self.num_captions > 1:
            raise UsageError("--explain cannot be used with --num-captions", "A row has the map of one caption.")
        if self.rank_by is not None:
            raise UsageError(
                "--explain cannot be used with --rank-by",
                "Rank first, with --keep 1 --out best.jsonl; then: "
                "blip2 match best.jsonl --text-column caption --explain",
            )

    def _check_nothing_ranked(self) -> None:
        for name in ("rank_model", "rank_revision", "keep", "threshold", "also_column"):
            if getattr(self, name) not in (None, ()):
                raise UsageError(f"--{name.replace('_', '-')} needs --rank-by", "For example: --rank-by itm.")

    def _check_ranking(self) -> None:
        if self.rank_revision is not None and self.rank_model is None:
            raise UsageError("--rank-revision needs --rank-model", "Name the checkpoint that it is of.")
        if self.keep is not None and self.keep > self.num_captions and not self.also_column:
            raise UsageError(
                f"--keep {self.keep} is more than --num-captions {self.num_captions}",
                "Lower the one or raise the other.",
            )
        if self.threshold is not None:
            check_score("--threshold", self.threshold, str(self.rank_by))

    def ranker(self, model: ModelSettings) -> ModelSettings | None:
        if self.rank_by is None:
            return None
        name = self.rank_model or ("tiny" if model.model == "tiny" else None)
        if name is None:
            raise UsageError("--rank-by needs --rank-model", f"For example: --rank-model {DEFAULT_RETRIEVAL_MODEL}.")
        if model.device_map is not None:
            raise UsageError(
                "--rank-by cannot be used with --device-map", "Write captions first, and score them with blip2 match."
            )
        return replace(model, model=name, revision=self.rank_revision)


class CaptionTask(Task):
    """The caption task; a column `caption`, or with several captions an image a list column `captions`."""

    needs = Needs()

    def __init__(self, job: Job) -> None:
        self.options = job.options_as(CaptionOptions)
        self.settings = job.generation
        self.is_ranked = job.ranker is not None
        self.maps = MapColumns.of(job, self.options.explain, self.options.explain_words)
        self.explains = self.maps.explain
        several = self.options.num_captions
        if several > 1 and not self.settings.samples and self.settings.num_beams < several:
            raise UsageError(
                f"--num-captions {several} needs as many beams, or sampling",
                f"Add --num-beams {several}, or --temperature 1.",
            )
        if several > 1 and self.settings.top_p == 0:
            raise UsageError(f"--top-p 0 gives {several} equal captions", "Raise it, for example to --top-p 0.9.")
        if self.options.also_column and self.settings.scores:
            raise UsageError(
                "--scores cannot be used with --also-column", "A manifest's captions have no probabilities."
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
            check_column("--prompt-column", self.options.prompt_column, names)
        for name in self.options.also_column:
            check_column("--also-column", name, names)

    def text_of(self, row: Row) -> str | None:
        value = row.columns.get(self.options.prompt_column or "")
        return None if value is None else str(value)

    @property
    def several(self) -> bool:
        """Whether an output row has a list of captions."""
        if self.options.keep == 1:
            return False
        return self.options.num_captions > 1 or bool(self.options.also_column)

    @property
    def ranking(self) -> Ranking:
        """What ranks the captions."""
        options = self.options
        assert options.rank_by is not None, "captions that are ranked"
        return Ranking(
            by=options.rank_by,
            several=self.several,
            keep=options.keep,
            threshold=options.threshold,
            also_columns=options.also_column,
            with_scores=self.settings.scores,
            around=self._shown,
        )

    def columns(self, checkpoint: Checkpoint) -> tuple[Column, ...]:
        prompt = (Column("prompt", "string"),) if self.shows_prompt else ()
        if self.is_ranked:
            return (*prompt, *self.ranking.columns)
        text = Column("captions", "strings") if self.several else Column("caption", "string")
        scores = score_columns(self.several) if self.settings.scores else ()
        return (*prompt, text, *scores, *self.maps.columns(checkpoint))

    def results(self, model: Blip2Model, batches: Iterator[Batch], watch: Stopwatch) -> Iterator[Result]:
        from blip2cli.tasks.generation import Generation, results_of, with_length

        settings = with_length(self.settings, MAX_NEW_TOKENS)
        generation = Generation(self._prompts, settings, self.options.num_captions, self.is_ranked, self.explains)
        rows = generation.rows(model, batches, watch)
        if not self.is_ranked:
            return results_of(explained(rows, model, self.maps, watch), self._values)
        assert model.ranker is not None, "a checkpoint with a ranker"
        return self.ranking.results(rows, model.ranker, watch)

    def _prompts(self, row: Row) -> list[Prompt]:
        from blip2cli.tasks.generation import Prompt

        if self.options.prompt_column:
            value = row.columns.get(self.options.prompt_column)
            if value is None or not str(value).strip():
                return [Prompt(None, (value,), empty_column(self.options.prompt_column, row))]
            try:
                text = text_in(self.options.prompt_column, value)
            except NotTexts as fault:
                return [Prompt(None, (None,), fault.error)]
            return [self._checked(Prompt(text, (text,)), row)]
        return [self._filled(template, row) for template in self.prompts] or [self._checked(Prompt(None), row)]

    def _filled(self, template: Template, row: Row) -> Prompt:
        from blip2cli.tasks.generation import Prompt

        try:
            text = template.fill(row)
        except MissingColumn as missing:
            return Prompt(None, (None,) if self.shows_prompt else (), missing.error)
        return self._checked(Prompt(text, (text,) if self.shows_prompt else ()), row)

    def _checked(self, prompt: Prompt, row: Row) -> Prompt:
        """The prompt, with an error if a text around the caption cannot be filled, or what competes is not texts."""
        try:
            for template in self.around:
                template.fill(row)
            for name in self.options.also_column:
                texts_in(name, row.columns.get(name))
        except (MissingColumn, NotTexts) as fault:
            return replace(prompt, error=fault.error)
        return prompt

    def _values(self, row: Row, prompt: Prompt, texts: list[WrittenText] | None) -> tuple[Any, ...]:
        from blip2cli.tasks.generation import score_values

        scores = score_values(texts, self.several) if self.settings.scores else ()
        maps = self.maps.values(texts[0].explanation if texts else None)
        if texts is None:
            return (*prompt.before, None, *scores, *maps)
        captions = [self._shown(row, text.text) for text in texts]
        return (*prompt.before, captions if self.several else captions[0], *scores, *maps)

    def _shown(self, row: Row, caption: str) -> str:
        """A caption with the texts around it."""
        before, behind = (template.fill(row) for template in self.around)
        return joined(before, caption, behind)


def joined(*texts: str) -> str:
    """Texts one after the other, with a space where two words would run together."""
    whole = ""
    for text in texts:
        parted = whole[-1:].isalnum() and text[:1].isalnum()
        whole += f" {text}" if parted else text
    return whole
