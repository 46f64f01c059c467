"""Writes search results like other results: to the terminal, a file, and a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from blip2cli import __version__
from blip2cli.commands.report import write_report
from blip2cli.commands.report.options import ReportSettings
from blip2cli.commands.search.options import SearchOptions
from blip2cli.host.terminal import show_warning
from blip2cli.outputs import open_output
from blip2cli.outputs.layout import Layout
from blip2cli.outputs.target import Target
from blip2cli.records import Result, Row
from blip2cli.run.nearest import QueryHits, layout_of_hits, results_of_hits
from blip2cli.settings import Job

if TYPE_CHECKING:
    from blip2cli.commands.results.pictures import Pictures
    from blip2cli.features.exact import Hit
    from blip2cli.features.files import Features


def write(job: Job, target: Target, pictures: Pictures, found_by_query: Sequence[QueryHits]) -> bool:
    """Write the rows; returns whether all of them are without errors."""
    features = pictures.features
    layout = _layout(job, features)
    results = list(results_of_hits(features, layout, found_by_query))
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
    options = job.options_as(SearchOptions)
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
    return layout_of_hits(features, metadata, reranked=options.rerank is not None)


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
