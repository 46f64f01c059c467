"""--retry-errors: an output once more, its good rows kept as they are and its error rows computed again.

The rows go through an ordinary run to an output beside the old one, which takes its place when it is whole. So a retry
may be killed and resumed as any run may, and nothing is lost meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from copy import copy
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from blip2cli.host.terminal import show_note
from blip2cli.model.checkpoint import find
from blip2cli.outputs import Layout, Output, beside, open_output, target_of
from blip2cli.outputs.journal import begun, committed
from blip2cli.outputs.replacement import take_place
from blip2cli.records import Result, Row
from blip2cli.run.flow import layout_of, run

if TYPE_CHECKING:
    from blip2cli.host.stopwatch import Stopwatch
    from blip2cli.inputs import Sources
    from blip2cli.run.pipeline import Start
    from blip2cli.run.summary import Tally
    from blip2cli.settings import Job
    from blip2cli.tasks import Task

KEPT = "kept"
"""The error that good rows are given on their way, so that nothing is done for them."""


@dataclass(frozen=True)
class Committed:
    """A task's source as far as it was committed, the rows that are kept marked."""

    source: Sources
    rows_done: int
    retried: frozenset[int]

    def rows(self, start: int = 0, before: str | None = None) -> Iterator[Row]:
        for row in islice(self.source.rows(start, before), self.rows_done - start):
            yield row if row.index in self.retried else replace(row, error=KEPT)

    def count(self) -> int | None:
        return self.rows_done

    def column_names(self) -> list[str]:
        return self.source.column_names()

    def schema(self) -> Any:
        return self.source.schema()


class Kept:
    """Puts the values of the old output's good rows back into their places."""

    def __init__(self, old: Output, layout: Layout, done: int) -> None:
        """`done` counts the input rows that the retry itself has committed."""
        self.old, self.layout, self.done = old, layout, done
        errors = [record["error"] is not None for record in old.records()]
        self.each = len(errors) // old.committed.rows
        self.retried = frozenset(at // self.each for at, error in enumerate(errors) if error)

    def amend(self, results: Iterator[Result]) -> Iterator[Result]:
        """The results, those of rows that are kept with what the old output has for them."""
        records: Any = self.old.records()
        with closing(records):
            before = islice(records, self.done * self.each, None)
            for result in results:
                record = next(before)
                if result.row.error != KEPT:
                    yield result
                    continue
                values = tuple(record[column.name] for column in self.layout.columns)
                yield Result(replace(result.row, error=None), values, None, result.last)

    def close(self, job: Job, tally: Tally, watch: Stopwatch, batch_size: int | None) -> dict[str, Any]:
        """What is said of the retry; the summary is that of the run behind it."""
        if not job.output.quiet:
            rows = "row was" if len(self.retried) == 1 else "rows were"
            errors = tally.earlier.errors + sum(tally.kinds.values())
            show_note(f"{len(self.retried):,} {rows} computed again, {errors:,} still with errors")
        return {}


def retry_errors(job: Job, task: Task, start: Start) -> None:
    """Compute the error rows of the job's output again, if it has any, in the pipeline that `start` makes."""
    target = target_of(job.output)
    if target is None or not begun(target.out):
        return
    out = target.out
    layout = layout_of(job, task, find(job.model, job.kind))
    old = open_output(job.output, layout, job.fingerprint())
    if not old.committed.errors:
        return
    again_out = beside(out)
    again = replace(job, output=replace(job.output, out=again_out, retry_errors=False, summary=None))
    kept = Kept(old, layout, committed(again_out).rows)
    retried: Any = copy(task)
    retried.source = Committed(task.source, old.committed.rows, kept.retried)
    run(again, retried, start, kept.amend, kept.close)
    take_place(out)
