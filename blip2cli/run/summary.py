"""What a run has done: counted while it goes, summed up at its end. Imports nothing heavy."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from blip2cli import __version__
from blip2cli.host.stopwatch import Stopwatch
from blip2cli.host.terminal import show_summary
from blip2cli.outputs.journal import Commit, write_atomically
from blip2cli.records import Result
from blip2cli.settings import Job


class Tally:
    """Counts of what came out, behind what an earlier run has committed."""

    def __init__(self, earlier: Commit) -> None:
        self.earlier = earlier
        self.rows = self.images = self.left_out = 0
        self.kinds: Counter[str] = Counter()

    def add(self, results: list[Result]) -> tuple[int, int]:
        """Count results; gives how many input rows and how many errors are among them."""
        images = sum(result.last for result in results)
        errors = [result.error.partition(":")[0] for result in results if result.error is not None]
        left_out = sum(result.left_out for result in results)
        self.rows += len(results) - left_out
        self.left_out += left_out
        self.images += images
        self.kinds.update(errors)
        return images, len(errors)


def close(job: Job, tally: Tally, watch: Stopwatch, batch_size: int | None) -> dict[str, Any]:
    """The summary: shown unless quiet, and written where --summary says."""
    seconds = watch.elapsed
    summary = {
        "task": job.task,
        "model": job.model_name,
        "out": str(job.output.out) if job.output.out else None,
        "rows": tally.rows,
        "images": tally.images,
        "left_out": tally.left_out,
        "resumed_at": tally.earlier.rows,
        "errors_before": tally.earlier.errors,
        "errors": sum(tally.kinds.values()),
        "errors_by_kind": dict(tally.kinds),
        "batch_size": batch_size,
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
