"""Writes search results like other results: to the terminal, a file, and a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blip2cli import __version__
from blip2cli.commands.report import ReportSettings, write_report
from blip2cli.commands.search.options import SearchOptions
from blip2cli.host.terminal import show_warning
from blip2cli.outputs import open_output
from blip2cli.outputs.layout import Layout, carried_names
from blip2cli.outputs.target import Target
from blip2cli.records import Column, Result, Row
from blip2cli.settings import Job

if TYPE_CHECKING:
    from blip2cli.commands.search.pictures import Pictures
    from blip2cli.features.exact import Hit
    from blip2cli.features.files import Features

OWN = ("image", "error")
"""Columns of a feature file that are not copied: the first names the row, and no row with
an error is found."""


@dataclass(frozen=True)
class QueryHits:
    """The rows for one query, best first.

    `unranked` are all those that ITM could not score.
    """

    query: str
    hits: Sequence[Hit]
    unranked: Sequence[Hit] = ()


def write(job: Job, target: Target, pictures: Pictures, found_by_query: Sequence[QueryHits]) -> bool:
    """Write the rows; returns whether all of them are without errors."""
    features = pictures.features
    layout = _layout(job, features)
    results = list(_results(features, layout, found_by_query))
    output = open_output(target, job.output, layout, layout.metadata)
    if results:
        output.write(results)
    output.finish()
    unranked = {hit.row: hit for query in found_by_query for hit in query.unranked}
    if unranked:
        _warn(features, list(unranked.values()))
    if job.options_as(SearchOptions).report is not None:
        _report(job, pictures, layout, results)
    return all(result.error is None for result in results)


def _warn(features: Features, unranked: Sequence[Hit]) -> None:
    """Say how many images ITM has not scored, and why for the first; its row may not be
    among those written."""
    single = len(unranked) == 1
    images = "1 image was not ranked again:" if single else f"{len(unranked):,} images were not ranked again, such as"
    name, error = features.records([unranked[0].row])[0]["image"], unranked[0].error
    where = "; --images and --image-root say where to look" if error and error.kind == "missing" else ""
    show_warning(f"{images} {name} ({error}){where}")


def _layout(job: Job, features: Features) -> Layout:
    import pyarrow as pa

    options = job.options_as(SearchOptions)
    columns = [Column("query", "string"), Column("rank", "integer"), Column("itc", "number")]
    if options.rerank is not None:
        columns.append(Column("itm", "number"))
    schema = pa.schema([field for field in features.schema if field.name not in OWN])
    metadata = {
        "task": job.task,
        "searched": str(features.path),
        "model": job.model_name,
        "revision": job.model.revision,
        "top_k": options.top_k,
        "rerank": options.rerank,
        "index": str(options.index) if options.index else None,
        "version": __version__,
    }
    return Layout(carried_names(schema.names, tuple(columns)), tuple(columns), lambda: schema, metadata)


def _results(features: Features, layout: Layout, found_by_query: Sequence[QueryHits]) -> Iterator[Result]:
    from blip2cli.tasks.generation import short

    rows = list(dict.fromkeys(hit.row for query in found_by_query for hit in query.hits))
    records = dict(zip(rows, features.records(rows), strict=True))
    number = 0
    for query in found_by_query:
        for rank, hit in enumerate(query.hits, 1):
            record = records[hit.row]
            row = Row(number, record["image"], columns={name: record[name] for name in layout.carried})
            itm = None if hit.itm is None else short(hit.itm)
            values = (query.query, rank, short(hit.itc), itm)[: len(layout.columns)]
            yield Result(row, values, hit.error)
            number += 1


def report_settings(job: Job) -> ReportSettings:
    """The page of --report, which is given."""
    page = job.options_as(SearchOptions).report
    assert page is not None
    return ReportSettings(page, job.output.overwrite, quiet=job.output.quiet)


def _report(job: Job, pictures: Pictures, layout: Layout, results: Sequence[Result]) -> None:
    def row(result: Result) -> Row:
        record = layout.record(result)
        return Row(result.row.index, record.pop("image"), columns=record)

    named = ((result.row.index, result.row.name) for result in results)
    title = f"search in {job.input.inputs[0]}"
    runs = {title: layout.metadata}
    write_report(map(row, results), report_settings(job), title, runs, pictures.rows(named), total=len(results))
