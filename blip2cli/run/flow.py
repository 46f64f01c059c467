"""The run: inputs → images → loader → model → tasks → outputs, from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from blip2cli import __version__
from blip2cli.host.signals import stopping
from blip2cli.host.stopwatch import Stopwatch
from blip2cli.host.terminal import Progress, show_warning
from blip2cli.model.checkpoint import Checkpoint, find
from blip2cli.outputs import Layout, Output, carried_names, open_output
from blip2cli.outputs.background import BackgroundOutput
from blip2cli.records import Result, Row
from blip2cli.run.pipeline import InProcess, Start
from blip2cli.run.summary import Tally, close
from blip2cli.settings import Job
from blip2cli.tasks import Task

Amend = Callable[[Iterator[Result]], Iterator[Result]]
Close = Callable[[Job, Tally, Stopwatch, int | None], dict[str, Any]]


def run(job: Job, task: Task, start: Start = InProcess, amend: Amend = iter, close: Close = close) -> dict[str, Any]:
    """Do a job, whose task is opened; gives its summary. Raises Blip2Error where it cannot go on.

    Args:
        job: what is to be done.
        task: the job's task.
        start: makes the pipeline that the rows go through, when it is known that there are any.
        amend: has the last word on the results, before they are written.
        close: makes the summary.
    """
    checkpoint = find(job.model, job.kind)
    layout = layout_of(job, task, checkpoint)
    output = open_output(job.output, layout, job.fingerprint())
    done, total = output.committed, task.source.count()
    rows = task.source.rows(done.rows, done.last)
    if done.rows and total is not None and done.rows >= total:
        output.finish()
        return close(job, Tally(done), Stopwatch(), None)

    if checkpoint.caution:
        show_warning(checkpoint.caution)
    with closing(start(job, task, checkpoint)) as pipeline:
        watch = Stopwatch()
        tally, progress = Tally(done), Progress(total, done.rows, job.output.quiet)
        writer = BackgroundOutput(output, job.output.commit_every, Stopwatch())
        try:
            with stopping() as stop:
                results = pipeline.results(_wanted(rows, output, progress), stop)
                for group in by_input_row(amend(results)):
                    writer.write(group)
                    progress.advance(*tally.add(group))
        finally:
            progress.close()
            writer.stop()
        spent = pipeline.spent()
    if stop.asked:
        raise KeyboardInterrupt
    output.finish()
    tally.kinds.update(layout.late)
    watch.seconds.update(spent.seconds, writing=writer.watch.seconds["writing"])
    if spent.batch_size < spent.started_with:
        show_warning(f"memory ran out with batches of {spent.started_with}; {spent.batch_size} worked")
    return close(job, tally, watch, spent.batch_size)


def _wanted(rows: Iterator[Row], output: Output, progress: Progress) -> Iterator[Row]:
    """The rows that the output has use for; the others count as done."""
    wants = getattr(output, "wants", None)
    for row in rows:
        if wants is None or wants(row):
            yield row
        else:
            progress.advance(1, 0)


def layout_of(job: Job, task: Task, checkpoint: Checkpoint) -> Layout:
    """The columns of the job's output, and the metadata that goes with them."""
    columns = task.columns(checkpoint)
    carried = carried_names(task.source.column_names(), columns)
    for name, shown in carried.items():
        if name != shown:
            show_warning(f"the input's column {name} is written as {shown}")
    metadata = {**job.fingerprint(), "precision": checkpoint.precision, "version": __version__}
    return Layout(carried, columns, task.source.schema, metadata)


def by_input_row(results: Iterator[Result]) -> Iterator[list[Result]]:
    """The results in lists, one for each input row."""
    group = []
    for result in results:
        group.append(result)
        if result.last:
            yield group
            group = []
