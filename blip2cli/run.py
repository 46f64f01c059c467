"""The run: inputs → images → loader → model → tasks → outputs, from top to bottom."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from blip2cli import __version__
from blip2cli.images import Reading
from blip2cli.job import Job
from blip2cli.journal import write_atomically
from blip2cli.loader import Loading, load
from blip2cli.model.blip2 import Blip2Model
from blip2cli.model.checkpoint import Checkpoint, find
from blip2cli.outputs import Layout, carried_names, check_output, open_output
from blip2cli.outputs.background import BackgroundOutput
from blip2cli.records import Result
from blip2cli.stopwatch import Stopwatch
from blip2cli.tasks import Task, open_task
from blip2cli.terminal import Progress, show_summary, show_warning

AT_ONCE = 32
"""Output rows handed to the writer together."""


def run(job: Job) -> dict[str, Any]:
    """Do a job in this process; gives its summary. Raises Blip2Error where it cannot go on."""
    check_output(job.output)
    task = open_task(job)
    checkpoint = find(job.model)
    output = open_output(job.output, layout_of(job, task, checkpoint), job.fingerprint())
    total = task.source.count()
    rows = task.source.rows(output.committed)
    if output.committed and output.committed == total:
        output.finish()
        return _close(job, Tally(output.committed), Stopwatch())

    model = Blip2Model(checkpoint, job.model.images_at_once)
    watch, tally = Stopwatch(), Tally(output.committed)
    progress = Progress(total, output.committed, job.output.quiet)
    reading = Reading(checkpoint.images.side, job.model.exact_pixels)
    loading = Loading(model.batch_size, job.model.workers, checkpoint.device.type == "cuda")
    writer = BackgroundOutput(output, job.output.commit_every, Stopwatch())
    try:
        batches = load(rows, reading, loading)
        for results in _groups(task.results(model, batches, watch)):
            writer.write(results)
            progress.advance(*tally.add(results))
    finally:
        progress.close()
        writer.stop()
    output.finish()
    watch.seconds["writing"] = writer.watch.seconds["writing"]
    return _close(job, tally, watch)


def layout_of(job: Job, task: Task, checkpoint: Checkpoint) -> Layout:
    """The columns of the job's output, and the metadata that goes with them."""
    columns = task.columns(checkpoint)
    carried = carried_names(task.source.column_names(), columns)
    for name, shown in carried.items():
        if name != shown:
            show_warning(f"the input's column {name} is written as {shown}")
    metadata = {**job.fingerprint(), "precision": checkpoint.precision, "version": __version__}
    return Layout(carried, columns, task.source.schema, metadata)


class Tally:
    """Counts of what came out."""

    def __init__(self, resumed_at: int) -> None:
        self.resumed_at = resumed_at
        self.rows = self.images = 0
        self.kinds: Counter[str] = Counter()

    def add(self, results: list[Result]) -> tuple[int, int]:
        """Count results; gives how many input rows and how many errors are among them."""
        images = sum(result.last for result in results)
        errors = [result.error.partition(":")[0] for result in results if result.error is not None]
        self.rows += len(results)
        self.images += images
        self.kinds.update(errors)
        return images, len(errors)


def _groups(results: Iterator[Result]) -> Iterator[list[Result]]:
    while group := list(islice(results, AT_ONCE)):
        yield group


def _close(job: Job, tally: Tally, watch: Stopwatch) -> dict[str, Any]:
    """The summary: shown unless quiet, and written where --summary says."""
    seconds = watch.elapsed
    summary = {
        "task": job.task,
        "model": job.model.model,
        "out": str(job.output.out) if job.output.out else None,
        "rows": tally.rows,
        "images": tally.images,
        "resumed_at": tally.resumed_at,
        "errors": sum(tally.kinds.values()),
        "errors_by_kind": dict(tally.kinds),
        "seconds": round(seconds, 3),
        "images_per_second": round(tally.images / seconds, 2) if seconds else 0.0,
        "phases": {name: round(spent, 3) for name, spent in watch.seconds.items()},
        "version": __version__,
    }
    if not job.output.quiet:
        show_summary(summary)
    if job.output.summary is not None:
        write_atomically(job.output.summary, json.dumps(summary, indent=2).encode() + b"\n")
    return summary
