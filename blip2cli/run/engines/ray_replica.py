"""One replica in a Ray cluster: an actor that turns stretches of the input into shards, one after the other.

The model runs in a process of its own below the actor, as with `--devices`: a row that kills it becomes an error row,
and the actor lives on. What an actor says is the same each time it does the same stretch, as Ray expects of a task that
it may repeat.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from blip2cli.errors import Blip2Error, UsageError
from blip2cli.host.signals import Stop
from blip2cli.host.stopwatch import Stopwatch
from blip2cli.model.checkpoint import Checkpoint, find
from blip2cli.outputs import Layout, Target
from blip2cli.outputs.apart import ShardApart, attempts_at
from blip2cli.outputs.background import BackgroundOutput
from blip2cli.records import Result
from blip2cli.run.engines.stretches import Stretches
from blip2cli.run.flow import by_input_row, layout_of
from blip2cli.run.pipeline import Pipeline
from blip2cli.settings import Job
from blip2cli.tasks import Task

SAID = 10
"""How often a replica says how far it is with a stretch, at most."""

SAID_IN_ALL = 2_000
"""How often all replicas do, at most, or once a stretch: Ray Data keeps a kilobyte of statistics for each time."""

MOST_ATTEMPTS = 5
"""Attempts at a shard whose actors died, as far as they can be seen; behind them the run goes on without it."""


@dataclass(frozen=True)
class Order:
    """What every replica is started with. The task comes with its source; each stretch is read where it is needed."""

    job: Job
    task: Task
    target: Target
    stretches: Stretches
    cores: int


@dataclass(frozen=True)
class Said:
    """What a replica says: `images` and `errors` since it last spoke of this stretch, and at its end what it holds.

    `kinds` counts the errors of the whole shard, `rows` its output rows, `left_out` those that are not written; `last`
    names the stretch's last input row, and `seconds` are those of each phase.
    `failure` is the message, the hint and the exit code of what ends the run.
    """

    number: int
    images: int = 0
    errors: int = 0
    finished: bool = False
    rows: int = 0
    left_out: int = 0
    kinds: Mapping[str, int] = field(default_factory=dict)
    last: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    batch_size: int | None = None
    failure: tuple[str, str, int] | None = None

    def packed(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def unpacked(text: str) -> Said:
        return Said(**json.loads(text))


class Replica:
    """Called by Ray Data with the places of stretches among those left; yields what `Said` packs, in a column."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.parts = min(SAID, SAID_IN_ALL // max(1, len(order.stretches))) or 1

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[dict[str, list[str]]]:
        for place in batch["place"]:
            for said in self._said(self.order.stretches.unfinished(int(place))):
                yield {"said": [said.packed()]}

    def _said(self, number: int) -> Iterator[Said]:
        try:
            if attempts_at(self.order.target, number) < MOST_ATTEMPTS:
                yield from self._shard(number)
        except Blip2Error as error:
            yield Said(number, failure=(error.message, error.hint, error.exit_code))
        except Exception as error:
            logging.getLogger(__name__).exception("shard %d failed", number)
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            yield Said(number, failure=(f"shard {number} failed: {reason}", "The logs of Ray's workers say more.", 1))

    def _shard(self, number: int) -> Iterator[Said]:
        """Do one stretch."""
        order, pipeline = self.order, self._pipeline
        before = pipeline.spent().seconds
        first, stop = order.stretches.bounds(number)
        layout = replace(self._layout, late=Counter())
        shard = ShardApart(order.target, layout, number)
        writer = BackgroundOutput(shard.output, float("inf"), Stopwatch())
        kinds: Counter[str] = Counter()
        images = rows = left_out = told = told_errors = 0
        last = None
        try:
            results = pipeline.results(order.task.source.stretch(first, stop), Stop())
            for group in by_input_row(results):
                writer.write(group)
                images, rows, last = images + 1, rows + len(group), group[-1].row.name
                left_out += sum(result.left_out for result in group)
                kinds.update(_kinds(group))
                if (
                    images * self.parts // (stop - first) > told * self.parts // (stop - first)
                    and images < stop - first
                ):
                    yield Said(number, images - told, kinds.total() - told_errors)
                    told, told_errors = images, kinds.total()
            writer.stop()
            if images < stop - first:
                raise UsageError(
                    f"the input has changed: it ends at row {first + images:,}, and had {order.stretches.rows:,}",
                    "Give the input as it was when the run began, or --overwrite.",
                )
            shard.publish()
        except BaseException:
            shard.discard()
            raise
        kinds.update(layout.late)
        errors = kinds.total() - told_errors
        spent = pipeline.spent()
        seconds = {phase: taken - before.get(phase, 0.0) for phase, taken in spent.seconds.items()}
        rows -= left_out
        yield Said(number, images - told, errors, True, rows, left_out, dict(kinds), last, seconds, spent.batch_size)

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        return find(self.order.job.model, self.order.job.kind)

    @cached_property
    def _layout(self) -> Layout:
        return layout_of(self.order.job, self.order.task, self._checkpoint)

    @cached_property
    def _pipeline(self) -> Pipeline:
        """The replica's model, in a process below this one."""
        from blip2cli.host.terminal import hush_libraries
        from blip2cli.run.engines.replicas import Replicas

        hush_libraries()
        order = self.order
        return Replicas(order.job, order.task, self._checkpoint, [self._checkpoint.device], order.cores)


def _kinds(group: list[Result]) -> Iterator[str]:
    return (result.error.partition(":")[0] for result in group if result.error is not None)
