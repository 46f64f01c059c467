"""`blip2 select`: rows of results that meet a condition, and their images in a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blip2cli.commands.select.options import SelectOptions
from blip2cli.errors import UsageError
from blip2cli.host.files import check_apart, check_writable
from blip2cli.settings import Job

if TYPE_CHECKING:
    from blip2cli.commands.select.selection import Selection
    from blip2cli.outputs.target import Target


def select(job: Job) -> bool:
    """Write the rows that are selected, and their images; returns whether all images were found. Raises Blip2Error."""
    from blip2cli.commands.select.pictures import gather
    from blip2cli.commands.select.rows import check_target, write
    from blip2cli.commands.select.selection import Selection
    from blip2cli.host.stopwatch import since_start
    from blip2cli.host.terminal import loading, show_note
    from blip2cli.outputs.target import locked_output, make_folder

    if not job.input.inputs:
        raise UsageError("no results are given", "For example: blip2 select answers.jsonl --where \"answer = 'yes'\".")
    with loading("results", job.output.quiet, drawn_only=True):
        selection = Selection.of(job)
        target = check_target(job, selection)
        _check_folder(job, selection)
        rows = f"{len(selection.numbers):,} of {selection.total:,} rows selected"
        if target is not None:
            if target.format.index:
                make_folder(target.path.parent)
            with locked_output(target, keep=False):
                write(job, target, selection)
    if not job.output.quiet:
        show_note(f"{rows}{_where(job, target)}, in {since_start():.1f} s")
    return True if job.options_as(SelectOptions).images_to is None else gather(job, selection)


def _where(job: Job, target: Target | None) -> str:
    return f", written to {job.output.out}" if target is not None and job.output.out is not None else ""


def _check_folder(job: Job, selection: Selection) -> None:
    """Check that images may go to the folder that is named. Raises UsageError."""
    folder = job.options_as(SelectOptions).images_to
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--images-to {folder} is not a folder", "Name a folder, which may be new.")
    check_writable(folder)
    outputs = {"--images-to": folder}
    check_apart(outputs, [*job.input.inputs, *selection.results.originals.files])
