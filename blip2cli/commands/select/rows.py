"""Selected rows as an output: where they go, their columns, and how they are written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from blip2cli import __version__
from blip2cli.commands.select.options import SelectOptions
from blip2cli.commands.select.selection import Selection
from blip2cli.errors import UsageError
from blip2cli.outputs import FORMATS, open_output
from blip2cli.outputs.layout import Layout
from blip2cli.outputs.target import Target, check_inputs, check_output, target_of
from blip2cli.records import Column, ImageRef, Result, RowError
from blip2cli.settings import Job

ERROR = "error"

TASK_COLUMNS = {"caption": ("caption", "captions"), "vqa": ("answer",), "embed": ("features",)}
"""Task → the columns that formats for it alone take from its rows."""

ROWS_AT_ONCE = 1024
"""Rows that are written together."""


def check_target(job: Job, selection: Selection) -> Target | None:
    """Where the rows go; None if only images are wanted. Raises UsageError if they cannot be written so."""
    if job.options_as(SelectOptions).images_to is not None and job.output.out is None and job.output.format is None:
        return None
    target = target_of(job.output, FORMATS)
    check_inputs(target, job, [*job.input.inputs, *selection.results.source.files])
    task = _task_of(target, selection)
    if task is not None:
        _column_of(task, target, selection)
    check_output(target, job.output, task or job.task, resumes=False)
    return target


def write(job: Job, target: Target, selection: Selection) -> None:
    """Write the selected rows. Raises OutputError."""
    layout = _layout(job, target, selection)
    output = open_output(target, job.output, layout, layout.metadata)
    waiting: list[Result] = []
    for result in _results(target, selection, layout):
        waiting.append(result)
        if len(waiting) == ROWS_AT_ONCE:
            output.write(waiting)
            waiting = []
    if waiting:
        output.write(waiting)
    output.finish()


def _task_of(target: Target, selection: Selection) -> str | None:
    """The task whose rows a format is for; None for formats of all rows. Raises UsageError if a column is missing."""
    tasks = target.format.tasks
    if not tasks:
        return None
    wanted = [name for task in tasks for name in TASK_COLUMNS[task]]
    if not set(wanted) & set(selection.names):
        raise UsageError(
            f"--format {target.name} needs a column {' or '.join(wanted)}",
            f"The results have: {', '.join(selection.names)}.",
        )
    return tasks[0]


def _column_of(task: str, target: Target, selection: Selection) -> Column:
    """The results' column of a task, as formats for that task take it. Raises UsageError for one of another type."""
    import pyarrow as pa

    name = next(name for name in TASK_COLUMNS[task] if name in selection.names)
    kind = selection.schema.field(name).type
    if isinstance(kind, pa.FixedShapeTensorType) and task == "embed":
        return Column(name, "tensor", tuple(kind.shape), "fp16" if kind.value_type == pa.float16() else "fp32")
    if task != "embed" and (pa.types.is_string(kind) or pa.types.is_null(kind)):
        return Column(name, "string")
    if task != "embed" and pa.types.is_list(kind):
        return Column(name, "strings")
    raise UsageError(
        f"--format {target.name} cannot take column {name} of type {kind}",
        "Give results in Parquet, whose columns have types." if task == "embed" else "Choose another format.",
    )


def _layout(job: Job, target: Target, selection: Selection) -> Layout:
    """The columns of the results, in their order; the task's comes last where a format asks for it."""
    import pyarrow as pa

    task = _task_of(target, selection)
    columns = () if task is None else (_column_of(task, target, selection),)
    own = {ERROR, *(column.name for column in columns)}
    schema = pa.schema([field for field in selection.schema if field.name not in own])
    metadata = {
        "task": job.task,
        "where": job.options_as(SelectOptions).where,
        "results": list(map(str, job.input.inputs)),
        "version": __version__,
    }
    return Layout.carrying(schema, columns, metadata)


def _results(target: Target, selection: Selection, layout: Layout) -> Iterator[Result]:
    images = _images(target, selection)
    for row in selection.rows():
        error = row.columns.get(ERROR)
        values = tuple(_value(row.columns.get(column.name), column) for column in layout.columns)
        image = images.get(row.index, row.image)
        yield Result(replace(row, image=image, error=None), values, RowError.parsed(str(error)) if error else None)


def _images(target: Target, selection: Selection) -> dict[int, ImageRef | None]:
    """Where the selected rows' images are, by the rows' index, if the format needs to know."""
    if not target.format.copies_images and target.format.destination != "beside":
        return {}
    return {row.index: row.image for row in selection.results.originals.of(selection.rows())}


def _value(value: Any, column: Column) -> Any:
    """A value as a task gives it."""
    if value is None:
        return None
    return str(value) if column.kind == "string" else value
