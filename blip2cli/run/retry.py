"""--retry-errors: writes an output again, with its good rows copied and its error rows
computed again.

The rows go through an ordinary run to a second output, which replaces the old one when it
is complete. So a retry can be killed and resumed like any run, and nothing is lost
meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from blip2cli.host.terminal import Progress, show_note
from blip2cli.images.ready import ReadyProcesses
from blip2cli.outputs.journal import read_journal
from blip2cli.outputs.replacement import swap_in
from blip2cli.outputs.target import no_retry
from blip2cli.records import Row
from blip2cli.run.flow import run
from blip2cli.run.kept import KeptRows
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


def _show(plan: Plan, tally: Tally, retried: int) -> None:
    if not plan.job.output.quiet:
        rows = "row was" if retried == 1 else "rows were"
        errors = tally.earlier.errors + tally.errors
        show_note(f"{retried:,} {rows} computed again, {errors:,} still with errors")
