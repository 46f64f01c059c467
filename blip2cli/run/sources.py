"""The input of a job, opened as its task reads it."""

from __future__ import annotations

from blip2cli.errors import UsageError
from blip2cli.inputs import ColumnChoice, Sources, open_source
from blip2cli.inputs.texts import Texts
from blip2cli.settings import Job
from blip2cli.tasks import Needs, Task

FEATURES = "features"
"""The column of features, as `blip2 embed` writes it."""


def open_input(job: Job, task: Task, written_folder: str | None = None) -> Sources:
    """The rows of a job, whose columns its task has seen. Raises UsageError if an input
    cannot be used.

    `written_folder` is a folder whose index the run itself writes, and does not read.
    """
    needs = task.needs
    text_column = _text_column(job, needs, written_folder)
    typed = (Texts(needs.texts),) if needs.texts else ()
    source = open_source(
        (*job.input.inputs, *typed),
        _columns(job, text_column, needs, written_folder),
        job.input.limit,
        job.input.share,
    )
    if text_column and not source.holds_texts:
        raise UsageError(*needs.no_text)
    task.check_columns(source.column_names(), text_column)
    return source


def _text_column(job: Job, needs: Needs, written_folder: str | None) -> str | None:
    """The column that texts are read from: the first of the possible columns that the
    input has."""
    if len(needs.text_columns) < 2:
        return next(iter(needs.text_columns), None)
    input_columns = open_source(job.input.inputs, _columns(job, None, needs, written_folder)).column_names()
    return next((name for name in needs.text_columns if name in input_columns), needs.text_columns[0])


def _columns(job: Job, text_column: str | None, needs: Needs, written_folder: str | None) -> ColumnChoice:
    settings = job.input
    return ColumnChoice(
        settings.image_column,
        text_column,
        text_required=text_column is not None,
        text_option=needs.text_option,
        features=FEATURES if needs.features else None,
        image_required=needs.images,
        root=settings.image_root,
        allow_remote=settings.allow_remote,
        allow_private=settings.allow_private,
        encoding=settings.encoding,
        written=written_folder,
    )
