"""`blip2 search`: the images of a feature file that best match a text or an image."""

from __future__ import annotations

import os
import shlex
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from blip2cli.commands.search.options import SearchOptions
from blip2cli.errors import UsageError
from blip2cli.host.terminal import Progress, hush_libraries, show_warning
from blip2cli.settings import Job, check_page

if TYPE_CHECKING:
    from blip2cli.commands.results.pictures import Pictures
    from blip2cli.features.index import Index
    from blip2cli.run.nearest import QueryHits


def search(job: Job) -> bool:
    """Search, and write the results; returns whether all of them are without errors.
    Raises Blip2Error.

    The job's first input is the feature file, the others are texts to search for.
    """
    from blip2cli.commands.results.pictures import Pictures
    from blip2cli.commands.search.results import report_settings, write
    from blip2cli.features.files import open_features
    from blip2cli.host.stopwatch import since_start
    from blip2cli.host.terminal import show_note
    from blip2cli.outputs import FORMATS
    from blip2cli.outputs.target import check_inputs, check_output, locked_output, target_of

    if not job.input.inputs:
        raise UsageError("no features are given", "For example: blip2 search feats.parquet 'a red circle'.")
    file, *texts = map(str, job.input.inputs)
    options = job.options_as(SearchOptions)
    _check_queries(file, texts, options)
    target = target_of(job.output, FORMATS)
    check_inputs(target, job, [*job.input.inputs, *job.files_of_options])
    check_output(target, job.output, job.task, resumes=False)
    features = open_features(Path(file))
    images = [word for image in options.image for word in ("--image", image)]
    command = shlex.join(["blip2", "search", file, *texts, *images])
    job = replace(job, model=features.model_settings(job.model, command))
    pictures = Pictures.of(features, options)
    files = (str(file) for part in features.parts for file in part.files)
    check_inputs(target, job, [*files, *pictures.originals.files, *options.image])
    if options.report is not None:
        check_page(options.report)
        report_settings(job).validate()
    hits = _search(job, pictures, texts)
    with locked_output(target, keep=False):
        good = write(job, target, pictures, hits)
    if not job.output.quiet:
        queries = "1 query" if len(hits) == 1 else f"{len(hits)} queries"
        how = f"by {options.index}" if options.index else "exact"
        show_note(f"{queries} over {features.rows:,} rows, {how}, in {since_start():.1f} s")
    return good


def _check_queries(file: str, texts: list[str], options: SearchOptions) -> None:
    """Check that there is a query, and that no text is the name of an image file. Raises UsageError."""
    from blip2cli.inputs.image_formats import is_image

    if not texts and not options.image:
        raise UsageError("no query is given", f"For example: blip2 search {file} 'a red circle', or --image FILE.")
    feature_file = next((text for text in texts if os.path.isfile(text) and not is_image(text)), None)
    if feature_file is not None and not os.path.exists(file):
        raise UsageError(
            f"no such file: {file}", f"Features come first: blip2 search {feature_file} {shlex.quote(file)}"
        )
    image = next((text for text in texts if is_image(text) and Path(text).is_file()), None)
    if image is not None:
        raise UsageError(f"{image} is an image, not a text", f"To search by it: --image {shlex.quote(image)}")


def _search(job: Job, pictures: Pictures, texts: list[str]) -> list[QueryHits]:
    """The results of each query, best first."""
    from blip2cli.features.index import Index

    options = job.options_as(SearchOptions)
    most = _wanted(options) + bool(options.image)  # one of which may be the query itself
    quiet = job.output.quiet
    index = Index.of(pictures.features, options.index, quiet, most) if options.index is not None else None
    with closing(Progress(quiet, job.output.out is None)) as progress:
        progress.load(job.model_name)  # before torch is imported, which takes seconds
        hush_libraries()
        return _ranked(job, pictures, texts, index)


def _ranked(job: Job, pictures: Pictures, texts: list[str], index: Index | None) -> list[QueryHits]:
    """The results of each query, by the index if there is one."""
    from blip2cli.commands.search.rerank import rerank
    from blip2cli.model import load_model
    from blip2cli.model.checkpoint.find import find_checkpoint
    from blip2cli.run.nearest import Queries

    options = job.options_as(SearchOptions)
    checkpoint = find_checkpoint(job.model, job.kind)
    if checkpoint.caution:
        show_warning(checkpoint.caution)
    model = load_model(checkpoint, job.model.images_at_once)
    queries = Queries(texts, options.image)
    by_itc = queries.nearest(pictures.features, model, job.model, _wanted(options), index)
    return by_itc if options.rerank is None else rerank(model, job, pictures, by_itc)


def _wanted(options: SearchOptions) -> int:
    """The number of rows that are needed for each query."""
    return max(options.top_k, options.rerank or 0)
