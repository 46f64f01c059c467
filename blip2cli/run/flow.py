"""The flow of a run: rows → images → model → task → output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, nullcontext
from itertools import chain

from blip2cli.errors import Interrupted
from blip2cli.host.signals import Stop, stopping
from blip2cli.host.terminal import Progress
from blip2cli.images.ready import ReadyProcesses
from blip2cli.outputs.background import BackgroundOutput
from blip2cli.outputs.formats import Output
from blip2cli.records import Result, Row
from blip2cli.run.plan import Plan
from blip2cli.run.summary import Tally
from blip2cli.run.update import NewRows


def run(plan: Plan, progress: Progress, ready: ReadyProcesses) -> Tally:
    """Run the plan, with processes that may be `ready` to decode, and show its progress.

    Raises Blip2Error if it cannot continue, and KeyboardInterrupt if it was stopped.
    """
    output = plan.open_output()
    done = output.committed
    new = _new_rows(plan, output)
    if new is None and plan.is_complete(done):
        output.finish()
        return Tally(done)
    rows = _known(new.rows(progress) if new else _wanted(plan.rows(done), output, progress))
    if rows is None:
        output.finish()
        tally = Tally(done)
    else:
        tally = _computed(plan, output, rows, progress, ready)
    tally.already_there = new.already_there if new else 0
    tally.skipped = output.skipped()
    return tally


def _computed(plan: Plan, output: Output, rows: Iterator[Row], progress: Progress, ready: ReadyProcesses) -> Tally:
    """Compute the rows, write them, and finish the output. Raises Interrupted if the run was stopped.

    A run that keeps nothing stops at once; one with an output finishes and commits the current rows.
    """
    kept = plan.target.format.resumes
    with (
        closing(plan.open_pipeline(rows, ready)) as pipeline,
        BackgroundOutput(output, plan.job.output.commit_every) as writer,
        stopping() if kept else nullcontext(Stop()) as stop,
    ):
        progress.begin(plan.total, 0 if plan.job.output.update else output.committed.rows)
        tally = Tally(output.committed)
        for results in by_input_row(pipeline.results(rows, stop)):
            writer.write(results)
            progress.advance(*tally.add(results))
    if stop.asked:
        of = f" of {plan.total:,}" if plan.total is not None else ""
        place = plan.job.output.out or "text files next to the images"
        raise Interrupted(f"{tally.earlier.rows + tally.images:,}{of} rows are kept in {place}")
    output.finish()
    tally.finish(pipeline.stats(), writer.seconds, plan.layout.late)
    return tally


def _known(rows: Iterator[Row]) -> Iterator[Row] | None:
    """The rows, once the first has been read; None if there are none, for which no model
    is loaded."""
    first = next(rows, None)
    return None if first is None else chain([first], rows)


def by_input_row(results: Iterator[Result]) -> Iterator[list[Result]]:
    """The results in lists, one for each input row."""
    group = []
    for result in results:
        group.append(result)
        if result.last:
            yield group
            group = []


def _new_rows(plan: Plan, output: Output) -> NewRows | None:
    """With --update, the rows that the output does not have yet.

    Text files are told by their names anyway.
    """
    if not plan.job.output.update or not plan.target.format.has_journal:
        return None
    return NewRows(plan, output)


def _wanted(rows: Iterator[Row], output: Output, progress: Progress) -> Iterator[Row]:
    """The rows that the output wants; the others count as done."""
    for row in rows:
        if output.wants(row):
            yield row
        else:
            progress.skip(1)
