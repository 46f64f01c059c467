"""Visual question answering: the same questions for every image, or a manifest's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from blip2cli.errors import UsageError
from blip2cli.inputs import ColumnChoice, Sources, open_source
from blip2cli.job import Job, Opt
from blip2cli.records import Batch, Column, Result, Row

if TYPE_CHECKING:
    from blip2cli.model.blip2 import Blip2Model
    from blip2cli.model.checkpoint import Checkpoint
    from blip2cli.stopwatch import Stopwatch
    from blip2cli.tasks.generation import Prompt

MAX_NEW_TOKENS = 10
"""As in LAVIS's VQA evaluations."""

TEMPLATES = {False: "Question: {} Answer:", True: "Question: {} Short answer:"}
"""The prompts of the paper's evaluations, by whether the language model is an encoder-decoder."""


@dataclass(frozen=True)
class VqaOptions:
    """What `blip2 vqa` alone is told."""

    panel = "Questions"
    prompt: Annotated[
        tuple[str, ...], Opt("Question for every image; may be repeated.", ("--prompt", "-p"), "TEXT")
    ] = ()
    questions: Annotated[Path | None, Opt("Text file with a question a line, for every image.", metavar="FILE")] = None
    question_column: Annotated[str, Opt("Manifest column with the row's question.", metavar="NAME")] = "question"
    template: Annotated[
        str | None, Opt("What a question is put into, at {}. [default: by language model]", metavar="TEXT")
    ] = None

    def validate(self) -> None:
        if self.template is not None and "{}" not in self.template:
            raise UsageError(
                "--template has no place for the question", "Write {} where it goes: 'Question: {} Answer:'."
            )
        if any(not question.strip() for question in self.prompt):
            raise UsageError("--prompt is empty", "Ask something: --prompt 'what colour is it?'.")


class VqaTask:
    """The VQA task; columns `question` and `answer`, an output row for every question of an image."""

    def __init__(self, job: Job) -> None:
        self.options: VqaOptions = job.options
        self.settings = job.generation
        self.asked = self.options.prompt + _questions(self.options.questions)
        own = not self.asked
        given = job.input
        column = self.options.question_column if own else None
        columns = ColumnChoice(
            given.image_column,
            column,
            own,
            root=given.image_root,
            allow_remote=given.allow_remote,
            allow_private=given.allow_private,
        )
        self.source: Sources = open_source(given.inputs, columns, given.limit, given.share)
        if own and not all(hasattr(part, "manifest_text") for part in self.source.parts):
            raise UsageError(
                "no question is asked", "Add --prompt 'what is in the picture?', or give --questions FILE."
            )

    def columns(self, checkpoint: Checkpoint) -> tuple[Column, ...]:
        return (Column("question", "string"), Column("answer", "string"))

    def results(self, model: Blip2Model, batches: Iterator[Batch], watch: Stopwatch) -> Iterator[Result]:
        from blip2cli.tasks.generation import Generation, Prompt, with_length

        template = self.options.template or TEMPLATES[model.checkpoint.encoder_decoder]

        def prompts(row: Row) -> Sequence[Prompt]:
            if self.asked:
                return [Prompt(template.replace("{}", question), (question,)) for question in self.asked]
            if row.text is None or not row.text.strip():
                return [Prompt(None, (row.text,), f"missing: nothing in column {self.options.question_column}")]
            return [Prompt(template.replace("{}", row.text), (row.text,))]

        generation = Generation(prompts, _values, with_length(self.settings, MAX_NEW_TOKENS))
        return generation.results(model, batches, watch)


def _values(prompt: Prompt, texts: list[str] | None) -> tuple[Any, ...]:
    return (*prompt.before, texts[0] if texts else None)


def _questions(file: Path | None) -> tuple[str, ...]:
    if file is None:
        return ()
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"cannot read --questions {file}: {reason}", "It holds a question a line.") from None
    questions = tuple(line.strip() for line in lines if line.strip())
    if not questions:
        raise UsageError(f"--questions {file} holds no question", "It holds a question a line.")
    return questions
