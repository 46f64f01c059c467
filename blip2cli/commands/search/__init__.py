"""`blip2 search`: the images of a feature file that best match a text or an image."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from blip2cli.commands.search.options import SearchOptions
from blip2cli.errors import UsageError
from blip2cli.settings import Job

if TYPE_CHECKING:
    from blip2cli.commands.search.pictures import Pictures
    from blip2cli.commands.search.results import QueryHits


def search(job: Job) -> bool:
    """Search, and write the results; returns whether all of them are without errors.
    Raises Blip2Error.

    The job's first input is the feature file, the others are texts to search for.
    """
    from blip2cli.commands.search.features import open_features
    from blip2cli.commands.search.pictures import Pictures
    from blip2cli.commands.search.results import report_settings, write
    from blip2cli.host.terminal import hush_libraries, show_note
    from blip2cli.outputs import FORMATS
    from blip2cli.outputs.target import check_inputs, check_output, locked_output, target_of

    if not job.input.inputs:
        raise UsageError("no features are given", "For example: blip2 search feats.parquet 'a red circle'.")
    started = time.perf_counter()
    file, *texts = map(str, job.input.inputs)
    options = job.options_as(SearchOptions)
    if not texts and not options.image:
        raise UsageError("no query is given", f"For example: blip2 search {file} 'a red circle', or --image FILE.")
    target = target_of(job.output, FORMATS)
    check_inputs(target, job, [*job.input.inputs, *job.files_of_options])
    check_output(target, job.output, job.task, resumes=False)
    features = open_features(Path(file))
    features.check_model(job.model_name, job.model.revision)
    pictures = Pictures.of(features, options)
    files = (str(file) for part in features.parts for file in part.files)
    check_inputs(target, job, [*files, *pictures.originals.files, *options.image])
    if options.report is not None:
        report_settings(job).validate()
    hush_libraries()
    hits = _search(job, pictures, texts)
    with locked_output(target, keep=False):
        good = write(job, target, pictures, hits)
    if not job.output.quiet:
        queries = "1 query" if len(hits) == 1 else f"{len(hits)} queries"
        how = f"by {options.index}" if options.index else "exact"
        show_note(f"{queries} over {features.rows:,} rows, {how}, in {time.perf_counter() - started:.1f} s")
    return good


def _search(job: Job, pictures: Pictures, texts: list[str]) -> list[QueryHits]:
    """The results of each query, best first."""
    from blip2cli.commands.search.exact import best_rows
    from blip2cli.commands.search.index import Index
    from blip2cli.commands.search.queries import Queries
    from blip2cli.commands.search.rerank import rerank
    from blip2cli.commands.search.results import QueryHits

    options = job.options_as(SearchOptions)
    features = pictures.features
    most = max(options.top_k, options.rerank or 0)
    index = Index.of(features, options.index, job.output.quiet, most) if options.index is not None else None
    queries = Queries(job)
    vectors = [*queries.of_texts(texts), *queries.of_images(options.image)]
    if vectors[0].shape[-1] != features.shape[1]:
        raise UsageError(
            f"{features.path} has features of {features.shape[1]} numbers, the model of {vectors[0].shape[-1]}",
            "Use the checkpoint that made them, or compute the features again.",
        )
    hits = best_rows(features, vectors, most) if index is None else index.best_rows(vectors, most)
    names = [*texts, *options.image]
    by_itc = [QueryHits(name, hits_of_query) for name, hits_of_query in zip(names, hits, strict=True)]
    return by_itc if options.rerank is None else rerank(queries.model, job, pictures, by_itc)
