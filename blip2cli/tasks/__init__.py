"""Tasks: what the model is asked, and which columns are written. One file for each task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from blip2cli.host.imports import load_object
from blip2cli.records import Batch, Column, Result, Row

if TYPE_CHECKING:
    from blip2cli.host.stopwatch import Stopwatch
    from blip2cli.model.checkpoint.record import Checkpoint
    from blip2cli.settings import Job

TASKS = {
    "caption": "blip2cli.tasks.caption:CaptionTask",
    "vqa": "blip2cli.tasks.vqa:VqaTask",
    "embed": "blip2cli.tasks.embed:EmbedTask",
    "match": "blip2cli.tasks.match:MatchTask",
    "classify": "blip2cli.tasks.classify:ClassifyTask",
}
"""Name → class, made from a Job."""


@dataclass(frozen=True)
class Needs:
    """What a task reads of its input.

    Args:
        images: whether a row needs an image.
        features: whether a row brings features that were computed earlier, in place of its image.
        text_columns: manifest columns that may hold a row's text; the first that the input has is read. Empty if
            the task reads no text.
        text_option: the option that names another.
        texts: texts that become rows themselves, after those of the input.
        no_text: message and hint for an input that cannot hold texts.
    """

    images: bool = True
    features: bool = False
    text_columns: tuple[str, ...] = ()
    text_option: str = "--text-column"
    texts: tuple[str, ...] = ()
    no_text: tuple[str, str] = ("", "")


class Task(Protocol):
    """One way to use the model. It says what it needs of an input, and does not know source or output."""

    needs: Needs
    several_rows: bool
    """Whether an image may have several output rows."""
    rows_each: int
    """How many output rows an input row has, or with a threshold at most."""
    explains: bool = False
    """Whether rows have maps of where the model looked."""
    own_text: str | None
    """The output's column with the text that a row itself brings, such as its question; None if rows bring none."""

    def check_columns(self, names: Sequence[str], text_column: str | None) -> None:
        """Check that the input has the columns that the task's texts refer to. Raises UsageError.

        Args:
            names: the input's columns, without those of the image and of the text.
            text_column: the column that a row's text is read from.
        """

    def text_of(self, row: Row) -> str | None:
        """The text that a row itself brings, as `own_text` has it."""
        return row.text

    def columns(self, checkpoint: Checkpoint) -> tuple[Column, ...]:
        """The columns that the task adds, from a checkpoint that is not loaded yet."""

    def results(self, model: Any, batches: Iterator[Batch], watch: Stopwatch) -> Iterator[Result]:
        """The output rows, in input order, error rows included. The model is of the kind that the job needs."""


def make_task(job: Job) -> Task:
    """The task of a job. Raises UsageError for options that cannot be used together, or files that cannot be read."""
    task: Task = load_object(TASKS[job.task])(job)
    return task
