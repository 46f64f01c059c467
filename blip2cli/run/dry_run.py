"""--dry-run: shows what a plan would read and write, and by which model, without doing
it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

from blip2cli.inputs.image_formats import unread_summary
from blip2cli.model.checkpoint.hub import NotCached
from blip2cli.model.checkpoint.placement import place_layers
from blip2cli.model.checkpoint.rank import ranker_bytes
from blip2cli.model.checkpoint.record import Checkpoint, Ranker
from blip2cli.model.checkpoint.size import shown_bytes, weight_bytes
from blip2cli.model.memory import free_bytes
from blip2cli.outputs.layout import carried_names
from blip2cli.run.plan import Plan
from blip2cli.settings import Job


def describe_plan(plan: Plan) -> list[tuple[str, str]]:
    """Headings and lines.

    Raises Blip2Error if the job could not be run. Counts the input, however long it
    takes.
    """
    job, done = plan.job, plan.committed
    rows = plan.total if plan.total is not None else sum(1 for _ in plan.source.rows())
    rows_text = f"{rows:,} rows"
    if done.rows and job.output.update:
        rows_text += f"; those that are not among the {done.rows:,} of the output are added"
    elif done.rows:
        rows_text += f", {done.rows:,} of them done before"
    lines = [("input", ", ".join(map(str, job.input.inputs)) or "texts"), ("rows", rows_text)]
    if unread := plan.source.unread():
        lines.append(("not read", unread_summary(unread)))
    if job.input.shard:
        lines.append(("shard", job.input.shard))
    try:
        checkpoint = plan.find_checkpoint(fetch=False)
    except NotCached:
        checkpoints = " and ".join(settings.name(kind) for settings, kind in job.checkpoints.values())
        lines.append(("model", f"{checkpoints}, which would be fetched from the hub"))
        return [*lines, *_output(plan)]
    columns = plan.task.columns(checkpoint)
    carried = carried_names(plan.source.column_names(), columns).values()
    names = ["image", *carried, *(column.name for column in columns), "error"]
    return [*lines, *_model(job, checkpoint), *_output(plan), ("columns", ", ".join(names)), *_settings(job)]


def _model(job: Job, checkpoint: Checkpoint) -> list[tuple[str, str]]:
    weights = weight_bytes(checkpoint)
    if checkpoint.ranker is not None:
        weights += ranker_bytes(checkpoint.ranker)
    free = [free_bytes(device) for device in checkpoint.devices]
    short = "; they do not fit" if weights > sum(free) else ""
    devices = ", ".join(map(str, checkpoint.devices))
    lines = [
        ("model", f"{job.model_name}, in {checkpoint.folder}"),
        *_ranker(checkpoint.ranker),
        ("precision", f"{checkpoint.precision} on {devices}, batches of {job.model.batch_size}"),
        ("memory", f"{shown_bytes(weights)} of weights, {' + '.join(map(shown_bytes, free))} free{short}"),
    ]
    if checkpoint.caution:
        lines.append(("warning", checkpoint.caution))
    if checkpoint.others:
        layers = Counter(place_layers(checkpoint).values())
        lines.append(("layers", ", ".join(f"{layers[device]} on {device}" for device in checkpoint.devices)))
    return lines


def _ranker(ranker: Ranker | None) -> list[tuple[str, str]]:
    if ranker is None:
        return []
    images = "has the model's vision weights: images are encoded once"
    if not ranker.shares_vision:
        images = "has vision weights of its own: images are encoded twice"
    return [("ranker", f"{ranker.checkpoint.name}, in {ranker.checkpoint.folder}; it {images}")]


def _output(plan: Plan) -> list[tuple[str, str]]:
    return [("output", plan.target.described(plan.job.output))]


def _settings(job: Job) -> list[tuple[str, str]]:
    """The task's and the generation's settings that are not at their defaults."""
    records = (job.options, job.generation)
    fields: list[tuple[Any, Any]] = [(record, field) for record in records for field in dataclasses.fields(record)]
    chosen = [(field.name, getattr(record, field.name)) for record, field in fields]
    defaults = [field.default for _, field in fields]
    shown = [
        f"{name} {_shown(value)}" for (name, value), default in zip(chosen, defaults, strict=True) if value != default
    ]
    return [("settings", ", ".join(shown))] if shown else []


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(repr, value))
    return repr(str(value) if isinstance(value, Path) else value)
