"""The features that are compared: those of a file, or of images, which are embedded first."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from blip2cli.commands.dedup.options import DedupOptions
from blip2cli.errors import Interrupted, UsageError
from blip2cli.features.files import OF_IMAGES, Features, holds_features, open_features
from blip2cli.inputs.image_formats import is_image
from blip2cli.inputs.walk import walk
from blip2cli.settings import InputSettings, Job, OutputSettings
from blip2cli.tasks.embed import EmbedOptions

AGAIN = "run the same command again to continue"


@contextmanager
def features_of(job: Job) -> Iterator[Features]:
    """The features of a job's input. Raises Blip2Error.

    Features of images are computed first: into --save-features, or into a file that is removed at the end.
    """
    names = list(map(str, job.input.inputs))
    files = [name for name in names if _is_features(name)]
    if files and len(names) > 1:
        raise UsageError(
            f"{files[0]} is a feature file, and there are other inputs",
            "Give one feature file, or a folder that holds its parts.",
        )
    saved = job.options_as(DedupOptions).save_features
    if files:
        if saved is not None:
            raise UsageError("--save-features needs images as input", f"{files[0]} holds features already.")
        yield open_features(Path(files[0]), OF_IMAGES)
    elif saved is not None:
        yield _computed(job, saved)
    else:
        with tempfile.TemporaryDirectory(prefix="blip2-") as folder:
            yield _computed(job, Path(folder) / "features.parquet")


def _is_features(name: str) -> bool:
    """Whether an input is features. A folder that has images too is a folder of images."""
    if not holds_features(Path(name)):
        return False
    return not os.path.isdir(name) or next(walk(name, is_image), None) is None


def _computed(job: Job, out: Path) -> Features:
    """Features of the job's images, computed into a file; what it holds already is used."""
    from blip2cli.run.engines.local import run_plan
    from blip2cli.run.plan import locked_plan

    options = job.options_as(DedupOptions)
    own = EmbedOptions(options.features, pool="mean" if options.features == "qformer" else None)
    inputs = InputSettings(
        job.input.inputs,
        image_column=options.image_column,
        image_root=options.image_root,
        allow_remote=options.allow_remote,
        allow_private=options.allow_private,
    )
    overwrite = job.output.overwrite
    output = OutputSettings(out, overwrite=overwrite, resume=not overwrite, quiet=job.output.quiet)
    try:
        with locked_plan(replace(job, task="embed", options=own, input=inputs, output=output)) as plan:
            _check_score_column(job, plan.source.column_names())
            if not plan.finished:
                run_plan(plan)
    except Interrupted as stopped:
        if options.save_features is None:
            raise Interrupted("Nothing was kept", "with --save-features, such a run can be continued") from None
        raise Interrupted(stopped.kept, AGAIN) from None
    return open_features(out, OF_IMAGES)


def _check_score_column(job: Job, names: Sequence[str]) -> None:
    """Check that the images' own columns have that of --score-column, before they are embedded. Raises UsageError."""
    column = job.options_as(DedupOptions).score_column
    if column is None or column in names:
        return
    inputs = ", ".join(map(str, job.input.inputs))
    columns = f"Its columns are: {', '.join(names)}." if names else "Give a table with the images and their scores."
    raise UsageError(f"{inputs} has no column {column}", columns)
