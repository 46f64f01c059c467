"""Visual question answering: the same questions for every image, or a manifest's own."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from blip2cli.errors import UsageError
from blip2cli.inputs.cells import NotTexts, json_texts, texts_in
from blip2cli.records import Batch, Column, Result, Row, RowError
from blip2cli.settings import Job, Opt, TaskOptions
from blip2cli.tasks import Needs, Task
from blip2cli.tasks.explain import Explain, ExplainWords, MapColumns, explained
from blip2cli.tasks.scores import score_columns
from blip2cli.tasks.template import MissingColumn, Template, check_column, check_place, empty_column, texts_in_file
from blip2cli.tasks.wide import columns_of, named_questions, widened

if TYPE_CHECKING:
    from blip2cli.host.stopwatch import Stopwatch
    from blip2cli.model.blip2 import Blip2Model
    from blip2cli.model.checkpoint.record import Checkpoint
    from blip2cli.tasks.generation import Prompt, WrittenText

MAX_NEW_TOKENS = 10
"""As in LAVIS's VQA evaluations."""


@dataclass(frozen=True)
class VqaOptions(TaskOptions):
    """The options of `blip2 vqa` alone."""

    panel = "Questions"
    prompt: Annotated[
        tuple[str, ...], Opt("Question for every image; may be repeated.", ("--prompt", "--question", "-p"), "TEXT")
    ] = ()
    questions: Annotated[
        Path | None, Opt("Text file with one question on each line, all for every image.", metavar="FILE")
    ] = None
    wide: Annotated[
        bool,
        Opt("One row for each image, with a column for each question; -p NAME=QUESTION names the column."),
    ] = False
    question_column: Annotated[str, Opt("Manifest column with the row's question.", metavar="NAME")] = "question"
    template: Annotated[
        str | None,
        Opt("What a question is put into, at {}; {NAME} is a column. [default: by language model]", metavar="TEXT"),
    ] = None
    choices: Annotated[
        str | None, Opt("Answers to choose from, separated by commas; the most likely is given.", metavar="A,B,...")
    ] = None
    choices_column: Annotated[
        str | None, Opt("Manifest column with the row's choices: a list, or separated by commas.", metavar="NAME")
    ] = None

    explain: Explain = False
    explain_words: ExplainWords = False

    def validate(self) -> None:
        check_place(self.template)
        if self.choices is not None and self.choices_column is not None:
            raise UsageError("--choices cannot be used with --choices-column", "Give one of them.")
        if self.choices is not None:
            fault = choices_error(split(self.choices))
            if fault:
                raise UsageError(
                    f"--choices {self.choices}: {fault}", "Separate the answers with commas: --choices yes,no."
                )
        if any(not question.strip() for question in self.prompt):
            raise UsageError("--prompt is empty", "Give a question, for example --prompt 'what colour is it?'.")


class VqaTask(Task):
    """The VQA task; columns `question` and `answer`, an output row for every question of an image.

    With --wide there is a row for each image, and a column for each question.
    """

    def __init__(self, job: Job) -> None:
        self.options = job.options_as(VqaOptions)
        self.settings = job.generation
        asked = self.options.prompt + (
            texts_in_file("--questions", self.options.questions) if self.options.questions else ()
        )
        self.maps = MapColumns.of(job, self.options.explain, self.options.explain_words)
        self.explains = self.maps.explain
        self.choosing = self.options.choices is not None or self.options.choices_column is not None
        self.wide = named_questions(asked, self._beside) if self.options.wide else []
        if self.options.wide and not self.wide:
            raise UsageError(
                "--wide needs questions for all images, not a column with a question for each row",
                "Add them, for example -p people='how many people?'; or leave out --wide.",
            )
        self.asked = [question.template for question in self.wide] or [
            Template(question, "--prompt") for question in asked
        ]
        self.several_rows = not self.wide
        self.rows_each = 1 if self.wide else max(len(self.asked), 1)
        self.own_text = None if self.asked else "question"
        self.template = Template(self.options.template, "--template") if self.options.template is not None else None
        if self.choosing and (self.settings.num_beams > 1 or self.settings.samples or self.settings.scores):
            raise UsageError(
                "choices cannot be used with --num-beams, sampling or --scores",
                "Choices are ranked, with their probabilities.",
            )
        self.needs = Needs(
            text_columns=() if self.asked else (self.options.question_column,),
            text_option="--question-column",
            no_text=("no question is asked", "Add --prompt 'what is in the picture?', or give --questions FILE."),
        )

    def check_columns(self, names: Sequence[str], text_column: str | None) -> None:
        for question in self.asked:
            question.check(names)
        if self.template:
            self.template.check(names)
        if self.options.choices_column:
            check_column("--choices-column", self.options.choices_column, names)

    def columns(self, checkpoint: Checkpoint) -> tuple[Column, ...]:
        answer = (Column("answer", "string"), *self._scores, *self.maps.columns(checkpoint))
        return columns_of(self.wide, answer) if self.wide else (Column("question", "string"), *answer)

    @property
    def _scores(self) -> tuple[Column, ...]:
        """The columns beside an answer."""
        if self.choosing:
            return (Column("probability", "number"), Column("probabilities", "numbers"))
        return score_columns(False) if self.settings.scores else ()

    @property
    def _beside(self) -> list[str]:
        """How the names of these columns end with --wide."""
        return [f"_{name}" for name in (*(column.name for column in self._scores), *self.maps.names)]

    def results(self, model: Blip2Model, batches: Iterator[Batch], watch: Stopwatch) -> Iterator[Result]:
        from blip2cli.tasks.generation import Generation, results_of, with_length

        template = self.template or Template(model.family.template, "--template")
        settings = with_length(self.settings, MAX_NEW_TOKENS)
        generation = Generation(lambda row: self._prompts(row, template), settings, to_explain=self.explains)
        rows = explained(generation.rows(model, batches, watch), model, self.maps, watch)
        results = results_of(rows, self._values)
        return widened(results, self.wide) if self.wide else results

    def _prompts(self, row: Row, template: Template) -> list[Prompt]:
        from blip2cli.tasks.generation import Prompt

        if not self.asked and (row.text is None or not row.text.strip()):
            return [Prompt(None, (row.text,), empty_column(self.options.question_column, row))]
        return [self._prompt(row, template, question) for question in self.asked or (None,)]

    def _prompt(self, row: Row, template: Template, asked: Template | None) -> Prompt:
        from blip2cli.tasks.generation import Prompt

        question = row.text
        try:
            question = asked.fill(row) if asked else row.text or ""
            choices = self._choices(row)
            fault = choices_error(choices) if self.choosing else None
            error = RowError("unsupported", fault) if fault else None
            return Prompt(template.fill(row, question), self._before(question), error, choices)
        except (MissingColumn, NotTexts) as fault:
            return Prompt(None, self._before(question), fault.error)

    def _before(self, question: str | None) -> tuple[str | None, ...]:
        """The values before an answer."""
        return () if self.wide else (question,)

    def _choices(self, row: Row) -> tuple[str, ...]:
        """The answers to choose from for a row; none if its answer is generated. Raises MissingColumn."""
        if self.options.choices_column is None:
            return split(self.options.choices) if self.options.choices is not None else ()
        cell = row.columns.get(self.options.choices_column)
        if cell is None:
            raise MissingColumn(self.options.choices_column, row)
        if isinstance(cell, str) and json_texts(cell) is None:
            return split(cell)
        return tuple(texts_in(self.options.choices_column, cell))

    def _values(self, row: Row, prompt: Prompt, texts: list[WrittenText] | None) -> tuple[Any, ...]:
        from blip2cli.tasks.generation import most_likely, score_values, short

        if texts is None:
            return (*prompt.before, None, *(None for _ in self._scores), *self.maps.values(None))
        best = most_likely(texts) if self.choosing else 0
        maps = self.maps.values(texts[best].explanation)
        if self.choosing:
            shares = softmax([text.logprob for text in texts])
            return (*prompt.before, prompt.choices[best], short(shares[best]), list(map(short, shares)), *maps)
        scores = score_values(texts, False) if self.settings.scores else ()
        return (*prompt.before, texts[0].text, *scores, *maps)


def split(choices: str) -> tuple[str, ...]:
    """Answers separated by commas, or by ends of lines; an answer that contains one is quoted, as in CSV."""
    lines = csv.reader(io.StringIO(choices, newline=""), skipinitialspace=True)
    return tuple(choice.strip() for line in lines for choice in line)


def choices_error(choices: tuple[str, ...]) -> str | None:
    """What is wrong with answers to choose from."""
    if len(choices) < 2:
        return "at least two choices are needed"
    if not all(choice.strip() for choice in choices):
        return "a choice is empty"
    return "a choice is repeated" if len(set(choices)) < len(choices) else None


def softmax(logprobs: list[float]) -> list[float]:
    """Probabilities among the choices, from their log-probabilities."""
    weights = [math.exp(logprob - max(logprobs)) for logprob in logprobs]
    return [weight / sum(weights) for weight in weights]
