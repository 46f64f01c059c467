"""One replica in a Ray cluster: an actor that turns stretches of the input into shards,
one after the other.

The model runs in a process of its own below the actor, as with `--devices`: a row that
kills it becomes an error row, and the actor lives on. An actor reports the same each time
it computes the same stretch, as Ray expects of a task that it may repeat.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from blip2cli.errors import Blip2Error, CheckpointError, OutputError, UsageError, reason
from blip2cli.host.signals import Stop
from blip2cli.outputs.background import BackgroundOutput
from blip2cli.outputs.standalone_shard import StandaloneShard, attempts_at
from blip2cli.records import Result
from blip2cli.run.engines.stretches import Stretches
from blip2cli.run.flow import by_input_row
from blip2cli.run.pipeline import Pipeline
from blip2cli.run.plan import Plan
from blip2cli.run.reasons import Reasons

REPORTS = 10
"""Reports of a replica on its progress with a stretch, at most."""

REPORTS_IN_ALL = 2_000
"""Reports of all replicas, at most, or one a stretch: Ray Data keeps a kilobyte of
statistics for each."""

MOST_ATTEMPTS = 5
"""Attempts at a shard whose actors died, as far as this is known; after them the run
continues without the shard."""

FAILURES: dict[str, type[Blip2Error]] = {
    error.__name__: error for error in (Blip2Error, UsageError, CheckpointError, OutputError)
}
"""Exceptions that end the run, by the names under which they are sent."""


@dataclass(frozen=True)
class ShardWork:
    """The arguments of every replica.

    Each stretch of the plan's source is read where it is needed.
    """

    plan: Plan
    stretches: Stretches
    cores: int


@dataclass(frozen=True)
class ShardProgress:
    """A replica's report: `images` and `errors` since its last on this stretch, and at
    the end what the shard holds.

    `kinds` and `reasons` count the errors of the whole shard, `rows` its output rows, `left_out` those
    that are not written, `empty` those without words; `last` names the stretch's last
    input row, and `seconds` are those of each phase. `failure` is the name (in FAILURES),
    the message and the hint of an exception that ends the run.
    """

    number: int
    images: int = 0
    errors: int = 0
    finished: bool = False
    rows: int = 0
    left_out: int = 0
    empty: int = 0
    kinds: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    last: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    batch_size: int | None = None
    failure: tuple[str, str, str] | None = None

    def packed(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def unpacked(text: str) -> ShardProgress:
        return ShardProgress(**json.loads(text))


@dataclass
class ShardCounts:
    """What is counted while a shard is computed, and how much of it has been reported.

    Args:
        number: the shard's.
        expected: input rows of its stretch.
        parts: the most reports before the last.
        images: input rows so far.
        rows: output rows so far, those that are left out too.
        left_out: output rows that are not written.
        empty: output rows for which the model wrote no words.
        kinds: errors by kind.
        last: the name of the latest input row.
    """

    number: int
    expected: int
    parts: int
    images: int = 0
    rows: int = 0
    left_out: int = 0
    empty: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    reasons: Reasons = field(default_factory=Reasons)
    last: str | None = None
    reported_images: int = 0
    reported_errors: int = 0

    def add(self, group: Sequence[Result]) -> None:
        """Count the output rows of one input row."""
        self.images += 1
        self.rows += len(group)
        self.last = group[-1].row.name
        for result in group:
            self.left_out += result.left_out
            self.empty += result.empty
            if result.error is not None:
                self.kinds[result.error.kind] += 1
                self.reasons.add(result.error)

    @property
    def is_due(self) -> bool:
        """Whether another part of the shard is done, and it is not the last."""
        return self.images < self.expected and self._part(self.images) > self._part(self.reported_images)

    def progress(self) -> ShardProgress:
        """What has not been reported yet; it then has."""
        images = self.images - self.reported_images
        errors = self.kinds.total() - self.reported_errors
        self.reported_images += images
        self.reported_errors += errors
        return ShardProgress(self.number, images, errors)

    def finished(self, seconds: Mapping[str, float], batch_size: int) -> ShardProgress:
        """The last report."""
        return replace(
            self.progress(),
            finished=True,
            rows=self.rows - self.left_out,
            left_out=self.left_out,
            empty=self.empty,
            kinds=dict(self.kinds),
            reasons=self.reasons.counts(),
            last=self.last,
            seconds=seconds,
            batch_size=batch_size,
        )

    def _part(self, images: int) -> int:
        return images * self.parts // self.expected


class Replica:
    """Called by Ray Data with the positions of stretches among those left; yields packed
    reports, in a column."""

    def __init__(self, work: ShardWork) -> None:
        self.work = work
        self.parts = min(REPORTS, REPORTS_IN_ALL // max(1, len(work.stretches))) or 1

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[dict[str, list[str]]]:
        for position in batch["position"]:
            for report in self._reports(self.work.stretches.unfinished(int(position))):
                yield {"report": [report.packed()]}

    def _reports(self, number: int) -> Iterator[ShardProgress]:
        try:
            if attempts_at(self.work.plan.target, number) < MOST_ATTEMPTS:
                yield from self._shard(number)
        except Blip2Error as error:
            yield ShardProgress(number, failure=(type(error).__name__, error.message, error.hint))
        except Exception as error:
            logging.getLogger(__name__).exception("shard %d failed", number)
            hint = "The logs of Ray's workers say more."
            yield ShardProgress(
                number, failure=("Blip2Error", f"shard {number} failed: {reason(error, named=True)}", hint)
            )

    def _shard(self, number: int) -> Iterator[ShardProgress]:
        """Compute one stretch, and publish its shard."""
        plan, pipeline = self.work.plan, self._pipeline
        first, stop = self.work.stretches.bounds(number)
        seconds_before = pipeline.stats().seconds
        layout = replace(plan.layout, late=Counter())
        counts = ShardCounts(number, stop - first, self.parts)
        with StandaloneShard(plan.target, layout, number) as shard:
            with BackgroundOutput(shard.output, float("inf")) as writer:
                results = pipeline.results(plan.source.stretch(first, stop), Stop())
                for group in by_input_row(results):
                    writer.write(group)
                    counts.add(group)
                    if counts.is_due:
                        yield counts.progress()
            if counts.images < counts.expected:
                raise self._input_changed(first + counts.images)
            shard.publish()
        counts.kinds.update(layout.late)
        stats = pipeline.stats()
        seconds = {phase: spent - seconds_before.get(phase, 0.0) for phase, spent in stats.seconds.items()}
        yield counts.finished(seconds, stats.batch_size)

    def _input_changed(self, end: int) -> UsageError:
        return UsageError(
            f"the input has changed: it ends at row {end:,}, and had {self.work.stretches.rows:,}",
            "Give the input as it was when the run began, or --overwrite.",
        )

    @cached_property
    def _pipeline(self) -> Pipeline:
        """The replica's model, in a process below this one."""
        from blip2cli.host.terminal import hush_libraries
        from blip2cli.run.engines.replicas import Replicas

        hush_libraries()
        plan = self.work.plan
        return Replicas(plan.job.model, plan.task, plan.checkpoint, [plan.checkpoint.device], self.work.cores)
