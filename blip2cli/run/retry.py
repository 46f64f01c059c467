"""--retry-errors: writes an output again, with its good rows copied and its error rows
computed again.

The rows go through an ordinary run to a second output, which replaces the old one when it
is complete. So a retry can be killed and resumed like any run, and nothing is lost
meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from blip2cli.errors import UsageError
from blip2cli.host.signals import Stop
from blip2cli.host.terminal import Progress, show_note
from blip2cli.images.ready import ReadyProcesses
from blip2cli.outputs.formats import Output
from blip2cli.outputs.journal import read_journal
from blip2cli.outputs.layout import Layout
from blip2cli.outputs.replacement import swap_in
from blip2cli.outputs.target import no_retry
from blip2cli.records import Result, Row
from blip2cli.run.flow import run
from blip2cli.run.pipeline import Pipeline, PipelineStats
from blip2cli.run.plan import Plan, RowsOfSource
from blip2cli.run.summary import Tally
from blip2cli.run.update import in_output_order


@dataclass(frozen=True)
class CommittedRows(RowsOfSource):
    """The part of a source that was committed; its good rows are marked as kept."""

    rows_done: int
    retried: frozenset[int]

    def rows(self, start: int = 0, before: str | None = None) -> Iterator[Row]:
        for row in islice(self.source.rows(start, before), self.rows_done - start):
            yield row if row.index in self.retried else replace(row, error=None, kept=True)

    def stretch(self, first: int, stop: int) -> Iterator[Row]:
        return islice(self.rows(), first, stop)

    def count(self) -> int | None:
        return self.rows_done


class KeptRows:
    """The good rows of an old output, which get the same places in the new one.

    Args:
        old: the old output.
        layout: its columns.
        done: input rows that the retry itself has committed.
    """

    def __init__(self, old: Output, layout: Layout, done: int) -> None:
        self.old, self.layout, self.done = old, layout, done
        errors = [record["error"] is not None for record in old.records()]
        self.rows_each = len(errors) // old.committed.rows
        self.retried = frozenset(at // self.rows_each for at, error in enumerate(errors) if error)

    def around(self, pipeline: Pipeline) -> Pipeline:
        """A pipeline whose results have the old output's values in the rows that are
        kept."""
        return _KeepingPipeline(self, pipeline)

    def restored(self, results: Iterator[Result]) -> Iterator[Result]:
        """The results; kept rows have their values in the old output."""
        records: Any = self.old.records()
        with closing(records):
            before = islice(records, self.done * self.rows_each, None)
            for result in results:
                record = next(before)
                name = record.get("image", result.row.name)  # files of results have no names
                if name != result.row.name:
                    raise _changed(name, result.row)
                if not result.row.kept:
                    yield result
                    continue
                values = tuple(record[column.name] for column in self.layout.columns)
                yield Result(replace(result.row, kept=False), values, last=result.last)


@dataclass(frozen=True)
class _KeepingPipeline:
    kept: KeptRows
    pipeline: Pipeline

    def results(self, rows: Iterator[Row], stop: Stop) -> Iterator[Result]:
        return self.kept.restored(self.pipeline.results(rows, stop))

    def stats(self) -> PipelineStats:
        return self.pipeline.stats()

    def close(self) -> None:
        self.pipeline.close()


def retry_errors(plan: Plan, progress: Progress, ready: ReadyProcesses) -> int:
    """Compute the error rows of the plan's output again, if it has any; returns how many there were."""
    if not plan.target.is_begun():
        return 0
    old = plan.open_output()
    if not old.committed.errors:
        return 0
    if plan.target.format.no_retry:
        raise no_retry(plan.target)
    target = plan.target.retried
    record = read_journal(target.journal_path)
    kept = KeptRows(old, plan.layout, record.commit.rows if record else 0)
    updated = plan.job.output.update
    source = CommittedRows(in_output_order(plan, old) if updated else plan.source, old.committed.rows, kept.retried)
    output = replace(plan.job.output, resume=True, update=False, retry_errors=False, summary=None)
    job = replace(plan.job, output=output)
    tally = run(replace(plan, job=job, target=target, source=source, kept=kept), progress, ready)
    _show(plan, tally, len(kept.retried))
    swap_in(plan.target)
    return len(kept.retried)


def _changed(name: str, row: Row) -> UsageError:
    return UsageError(
        f"the input has changed: row {row.index + 1} was {name}, is {row.name}",
        "Use --update --retry-errors, which finds rows by their names.",
    )


def _show(plan: Plan, tally: Tally, retried: int) -> None:
    if not plan.job.output.quiet:
        rows = "row was" if retried == 1 else "rows were"
        errors = tally.earlier.errors + tally.errors
        show_note(f"{retried:,} {rows} computed again, {errors:,} still with errors")
