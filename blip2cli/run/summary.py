"""The summary of a run: counted during the run, shown at its end.

Imports nothing heavy.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from blip2cli import __version__
from blip2cli.host.files import write_atomically
from blip2cli.host.stopwatch import Stopwatch, since_start
from blip2cli.host.terminal import show_note, show_summary, show_warning
from blip2cli.inputs.image_formats import unread_summary
from blip2cli.outputs.commits import Commit
from blip2cli.records import Result
from blip2cli.run.reasons import Reasons
from blip2cli.settings import Job

if TYPE_CHECKING:
    from blip2cli.run.pipeline import PipelineStats


class Tally:
    """Counts of the results of this run, and of those committed earlier. Its clock starts
    when it is made.

    `skipped` says which rows the output did not want, and why; it is empty if it wanted
    all. `retried` rows of the earlier ones were computed again before this run.
    """

    def __init__(self, earlier: Commit) -> None:
        """`already_there` counts the rows of the input that --update found in the output."""
        self.earlier, self.already_there = earlier, 0
        self.rows = self.images = self.left_out = self.empty = self.retried = 0
        self.kinds: Counter[str] = Counter()
        self.reasons = Reasons()
        self.watch = Stopwatch()
        self.batch_size: int | None = None
        self.skipped = ""

    @property
    def errors(self) -> int:
        """Rows with errors among those that this run wrote."""
        return self.kinds.total()

    @property
    def any_errors(self) -> bool:
        """Whether rows of the output have errors, also those of an earlier run."""
        return self.errors > 0 or self.earlier.errors > 0

    def add(self, results: list[Result]) -> tuple[int, int]:
        """Count results; returns how many input rows and how many errors are among them."""
        images = sum(result.last for result in results)
        errors = [result.error for result in results if result.error is not None]
        left_out = sum(result.left_out for result in results)
        self.rows += len(results) - left_out
        self.left_out += left_out
        self.empty += sum(result.empty for result in results)
        self.images += images
        self.kinds.update(error.kind for error in errors)
        for error in errors:
            self.reasons.add(error)
        return images, len(errors)

    def finish(self, stats: PipelineStats, writing: float, late: Mapping[str, int]) -> None:
        """Add the counts of the pipeline and of the output.

        Args:
            stats: those of the pipeline.
            writing: seconds that the output took.
            late: rows that failed only when they were written, by kind of error.
        """
        self.kinds.update(late)
        self.batch_size = stats.batch_size
        self.watch.seconds.update(stats.seconds, writing=writing)
        if stats.batch_size < stats.started_with:
            show_warning(f"memory ran out with batches of {stats.started_with}; {stats.batch_size} worked")


def close(job: Job, tally: Tally, unread: Mapping[str, int]) -> None:
    """Show the summary on stderr unless quiet, and write --summary.

    `unread` counts files not read, by suffix.
    """
    summary = {**_summary(job, tally), "not_read": dict(unread)}
    if not job.output.quiet:
        show_summary(summary)
        lines = (
            _nothing_new(job, tally),
            tally.skipped,
            _none_there(job, tally),
            _errors_there(job, tally),
            _empty(tally),
        )
        for line in filter(None, lines):
            show_note(f"  {line}")
        if unread:
            show_note(unread_summary(unread))
    if job.output.summary is not None:
        write_atomically(job.output.summary, json.dumps(summary, indent=2).encode() + b"\n")


def _empty(tally: Tally) -> str:
    """How many rows have a text without words, and what to do; empty if none have."""
    if not tally.empty:
        return ""
    rows = "1 row has an empty text" if tally.empty == 1 else f"{tally.empty:,} rows have an empty text"
    return f"warning: {rows}: the model wrote no words; --min-new-tokens 3 makes it write some"


def _nothing_new(job: Job, tally: Tally) -> str:
    """Why there are no rows, if it is because of the input; else an empty text."""
    if tally.rows or tally.left_out or tally.skipped:
        return ""
    if tally.retried:
        return "the other rows of the input were there already"
    if job.output.update and tally.earlier.rows:
        return f"nothing new: {job.output.out} has all rows of the input already"
    if tally.earlier.rows:
        return f"nothing new: {job.output.out} has as many rows as the input; --update compares all their names"
    inputs = ", ".join(map(str, job.input.inputs)) or "the input"
    part = f"part {job.input.shard} of " if job.input.shard else ""
    return f"{part}{inputs} has no rows"


def _none_there(job: Job, tally: Tally) -> str:
    """A warning if --update found no row of the output in the input: the same images may be named otherwise."""
    if not (job.output.update and tally.earlier.rows and tally.rows) or tally.already_there or tally.skipped:
        return ""
    rows = "the row" if tally.earlier.rows == 1 else f"the {tally.earlier.rows:,} rows"
    return (
        f"warning: the input has none of {rows} that {job.output.out} had before; rows are compared by "
        "name: type the input as in the first run (photos and ./photos are two names)"
    )


def _errors_there(job: Job, tally: Tally) -> str:
    """How rows that --update leaves as they are, with their errors, are computed again."""
    errors = tally.earlier.errors
    if not job.output.update or not errors:
        return ""
    if errors == 1:
        return "1 row there has an error; --update --retry-errors computes it again"
    return f"{errors:,} rows there have errors; --update --retry-errors computes them again"


def _summary(job: Job, tally: Tally) -> dict[str, Any]:
    running, seconds = tally.watch.elapsed, since_start()
    phases = {"loading": max(seconds - running, 0.0), **tally.watch.seconds}
    return {
        "task": job.task,
        "model": job.model_name,
        "out": str(job.output.out) if job.output.out else None,
        "rows": tally.rows,
        "images": tally.images,
        "left_out": tally.left_out,
        "empty": tally.empty,
        "resumed_at": tally.earlier.rows,
        "already_there": tally.already_there,
        "errors_before": tally.earlier.errors,
        "errors": tally.errors,
        "errors_by_kind": dict(tally.kinds),
        "error_reasons": tally.reasons.counts(),
        "batch_size": tally.batch_size,
        "seconds": round(seconds, 3),
        "images_per_second": round(tally.images / running, 2) if running else 0.0,
        "phases": {name: round(seconds_spent, 3) for name, seconds_spent in phases.items()},
        "version": __version__,
    }
