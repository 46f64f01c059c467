"""What was found, written as other results are: to the terminal, a file, and a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from blip2cli import __version__
from blip2cli.inputs.manifest import Layout as Manifest
from blip2cli.job import Job
from blip2cli.outputs import Layout, carried_names, open_output
from blip2cli.records import Column, Result, Row
from blip2cli.report import ReportSettings, write_report
from blip2cli.terminal import show_warning

if TYPE_CHECKING:
    from blip2cli.search.exact import Hit
    from blip2cli.search.features import Features

OWN = ("image", "error")
"""Columns of a feature file that are not carried: the first names the row, and no row with an error is found."""


@dataclass(frozen=True)
class Found:
    """The rows for one query, best first. `unread` counts those whose images could not be read."""

    query: str
    hits: Sequence[Hit]
    unread: int = 0


def write(job: Job, features: Features, found: Sequence[Found]) -> bool:
    """Write the rows; whether all of them are without errors."""
    layout = _layout(job, features)
    results = list(_results(features, layout, found))
    output = open_output(job.output, layout, layout.metadata)
    if results:
        output.write(results)
    output.finish()
    unread = sum(one.unread for one in found)
    if unread:
        images = "1 image" if unread == 1 else f"{unread:,} images"
        show_warning(f"{images} could not be read: see the errors of the last rows; paths start from --image-root")
    if job.options.report is not None:
        _report(job, features, layout, results)
    return not unread


def _layout(job: Job, features: Features) -> Layout:
    import pyarrow as pa

    columns = [Column("query", "string"), Column("rank", "integer"), Column("itc", "number")]
    if job.options.rerank is not None:
        columns.append(Column("itm", "number"))
    schema = pa.schema([field for field in features.schema if field.name not in OWN])
    metadata = {
        "task": job.task,
        "searched": str(features.path),
        "model": job.model_name,
        "revision": job.model.revision,
        "top_k": job.options.top_k,
        "rerank": job.options.rerank,
        "index": str(job.options.index) if job.options.index else None,
        "version": __version__,
    }
    return Layout(carried_names(schema.names, tuple(columns)), tuple(columns), lambda: schema, metadata)


def _results(features: Features, layout: Layout, found: Sequence[Found]) -> Iterator[Result]:
    from blip2cli.tasks.generation import short

    rows = list(dict.fromkeys(hit.row for one in found for hit in one.hits))
    records = dict(zip(rows, features.records(rows), strict=True))
    number = 0
    for one in found:
        for rank, hit in enumerate(one.hits, 1):
            record = records[hit.row]
            row = Row(number, record["image"], columns={name: record[name] for name in layout.carried})
            itm = None if hit.itm is None else short(hit.itm)
            values = (one.query, rank, short(hit.itc), itm)[: len(layout.columns)]
            yield Result(row, values, hit.error)
            number += 1


def places_of(features: Features, job: Job) -> Manifest:
    """Where the images of rows are: their names are paths from here, or from --image-root, or URLs.

    A feature file may come from anybody, as a manifest may, and is treated as one.
    """
    given = job.options
    return Manifest(
        str(features.path), "image", None, (), given.image_root or "",
        allow_remote=given.allow_remote, allow_private=given.allow_private,
    )  # fmt: skip


def report_settings(job: Job) -> ReportSettings:
    """Where the page goes that --report names."""
    return ReportSettings(job.options.report, job.output.overwrite, quiet=job.output.quiet)


def _report(job: Job, features: Features, layout: Layout, results: Sequence[Result]) -> None:
    places = places_of(features, job)

    def rows() -> Iterator[Row]:
        for result in results:
            record: dict[str, Any] = layout.record(result)
            placed = places.row({"image": record.pop("image")}, result.row.index)
            yield replace(placed, index=result.row.index, columns=record)

    title = f"search in {job.input.inputs[0]}"
    write_report(rows(), report_settings(job), title, {title: layout.metadata}, total=len(results))
