"""`blip2 dedup`: groups of images that are the same or nearly the same, and which of each to keep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from blip2cli.commands.dedup.options import DedupOptions
from blip2cli.errors import Interrupted, UsageError
from blip2cli.host.terminal import Progress, show_note, show_warning
from blip2cli.settings import Job, check_page

if TYPE_CHECKING:
    import numpy as np

    from blip2cli.commands.dedup.content import Content
    from blip2cli.commands.results.pictures import Pictures
    from blip2cli.features.duplicates import Duplicates
    from blip2cli.features.files import Features
    from blip2cli.outputs.target import Target

MILLION = 1_000_000


def dedup(job: Job) -> bool:
    """Find duplicates, and write each row with its group; returns whether all rows are without errors.

    Raises Blip2Error, or Interrupted where it is stopped.
    """
    from blip2cli.commands.dedup.embedding import features_of
    from blip2cli.commands.results.pictures import Pictures
    from blip2cli.outputs import FORMATS
    from blip2cli.outputs.target import check_inputs, check_output, locked_output, target_of

    if not job.input.inputs:
        raise UsageError("no input is given", "For example: blip2 dedup feats.parquet, or blip2 dedup ./photos")
    target = target_of(job.output, FORMATS)
    check_inputs(target, job, [*job.input.inputs, *job.options_as(DedupOptions).images])
    check_output(target, job.output, job.task, resumes=False)
    _check_files(job)
    done: list[str] = []
    with _told_when_interrupted(job, done), features_of(job) as features:
        pictures = Pictures.of(features, job.options_as(DedupOptions), _embedded_images(job, features))
        parts = [str(file) for part in features.parts for file in part.files]
        check_inputs(target, job, [part for part in parts if part != str(job.options_as(DedupOptions).save_features)])
        with locked_output(target, keep=False):
            return _dedup(job, target, pictures, done)


def _dedup(job: Job, target: Target, pictures: Pictures, done: list[str]) -> bool:
    """Find the duplicates among features, and write all that was asked for; `done` gets what is written."""
    from blip2cli.commands.dedup.results import write, write_list
    from blip2cli.commands.dedup.sheets import write_sheets
    from blip2cli.host.stopwatch import since_start

    options = job.options_as(DedupOptions)
    duplicates = _duplicates(job, pictures)
    errors = write(job, target, pictures.features, duplicates)
    done.append(str(job.output.out or "the rows"))
    found = _in_words(duplicates, errors)
    if not job.output.quiet:
        show_note(f"{found}, in {since_start():.1f} s")
    if options.kept_list is not None:
        listed = write_list(options.kept_list, pictures, duplicates)
        done.append(str(options.kept_list))
        if not job.output.quiet:
            show_note(f"{options.kept_list}: {listed:,} kept {'image' if listed == 1 else 'images'}")
    if options.report is not None:
        write_sheets(job, pictures, duplicates, found)
    return not errors


def _in_words(duplicates: Duplicates, errors: int) -> str:
    """What was found, in a line."""
    rows, kept = len(duplicates.kept), int(duplicates.is_kept.sum())
    exact = int(duplicates.exact.sum())
    groups = len(set(duplicates.kept[~duplicates.is_kept].tolist()))
    near = rows - kept - exact
    image = "image" if rows == 1 else "images"
    duplicate = "duplicate" if near == 1 else "duplicates"
    return (
        f"{rows:,} {image}, {kept:,} kept; {groups:,} {'group' if groups == 1 else 'groups'} of duplicates: "
        f"{exact:,} exact and {near:,} near {duplicate} dropped; {errors:,} with errors"
    )


def _duplicates(job: Job, pictures: Pictures) -> Duplicates:
    from blip2cli.features.duplicates import find_duplicates
    from blip2cli.features.preference import compared_rows

    options, features, quiet = job.options_as(DedupOptions), pictures.features, job.output.quiet
    rows, scores = compared_rows(features, options.score_column)
    content = _content(options, pictures, rows, quiet)
    order = rows[_order(options, content, rows, scores)]
    same = content.same(order)
    with closing(Progress(quiet, job.output.out is None)) as progress:
        progress.begin(None, 0, "million comparisons")

        def advance(compared: int, total: int) -> None:
            progress.reach(compared // MILLION, max(total, 1) // MILLION)

        return find_duplicates(features, order, same, options.threshold, advance)


def _content(options: DedupOptions, pictures: Pictures, rows: np.ndarray, quiet: bool) -> Content:
    from blip2cli.commands.dedup.content import Content, read_content

    if options.skip_content:
        return Content.unknown(pictures.features.rows)
    content = read_content(pictures, rows, options.keep == "largest", quiet)
    if content.missing and not quiet:
        images = "1 image was" if content.missing == 1 else f"{content.missing:,} images were"
        show_warning(f"{images} not found and compared by features alone; --images and --image-root say where to look")
    return content


def _order(options: DedupOptions, content: Content, rows: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The order in which rows are preferred."""
    from blip2cli.features.preference import preferred

    if options.keep == "largest":
        return preferred(content.pixels[rows], content.sizes[rows])
    return preferred(scores)


def _embedded_images(job: Job, features: Features) -> list[str]:
    """The inputs that hold the images, if the features are not an input themselves."""
    inputs = [str(name) for name in job.input.inputs]
    return [] if inputs == [str(features.path)] else [name for name in inputs if name != "-"]


def _check_files(job: Job) -> None:
    """Check the files that are written beside the rows. Raises UsageError."""
    from blip2cli.host.files import check_new_file

    options = job.options_as(DedupOptions)
    for path in (options.kept_list, options.report):
        if path is not None:
            check_new_file(path, job.output.overwrite)
    check_page(options.report)


@contextmanager
def _told_when_interrupted(job: Job, done: list[str]) -> Iterator[None]:
    """While inside, Ctrl-C says what was written until then."""
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt:
        saved = job.options_as(DedupOptions).save_features
        kept = [*done, *([str(saved)] if saved is not None and saved.exists() else [])]
        what = f"{' and '.join(kept)} {'is' if len(kept) == 1 else 'are'} kept" if kept else "Nothing was written"
        raise Interrupted(what, "run the same command again") from None
