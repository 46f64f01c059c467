"""`blip2 select`: rows of results that meet a condition, and their images in a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from blip2cli.errors import UsageError
from blip2cli.host.files import check_apart
from blip2cli.settings import Job, Opt

if TYPE_CHECKING:
    from blip2cli.commands.select.selection import Selection
    from blip2cli.outputs.target import Target


@dataclass(frozen=True)
class SelectOptions:
    """The options of `blip2 select` alone."""

    panel = "Selection"
    needs_input: ClassVar[bool] = False
    where: Annotated[
        str | None,
        Opt("Condition in SQL over the columns, such as \"answer = 'yes' and probability > 0.9\".", metavar="SQL"),
    ] = None
    limit: Annotated[int | None, Opt("Stop after this many selected rows.", metavar="N", min=1)] = None
    images_to: Annotated[Path | None, Opt("Copy the selected rows' images to this folder.", metavar="FOLDER")] = None
    link: Annotated[bool, Opt("With --images-to: symbolic links instead of copies.")] = False
    images: Annotated[
        tuple[str, ...],
        Opt("Input of the run, to find images that are not at their row's name; may be repeated.", metavar="INPUT"),
    ] = ()
    image_column: Annotated[str | None, Opt("Column with the image's path or bytes.", metavar="NAME")] = None
    image_root: Annotated[
        str | None,
        Opt(
            "Folder of the images; nothing outside it is read. [default: the current, else that of the results]",
            metavar="FOLDER",
        ),
    ] = None
    allow_remote: Annotated[bool, Opt("Fetch the images behind URLs.")] = False
    allow_private: Annotated[bool, Opt("With --allow-remote: also from this machine and private networks.")] = False

    def validate(self) -> None:
        if self.link and self.images_to is None:
            raise UsageError("--link needs --images-to", "Name the folder that the links go to.")
        if self.where is not None and not self.where.strip():
            raise UsageError("--where is empty", "For example: --where \"answer = 'yes'\"; or leave it out.")


def select(job: Job) -> bool:
    """Write the rows that are selected, and their images; returns whether all images were found. Raises Blip2Error."""
    from blip2cli.commands.select.pictures import gather
    from blip2cli.commands.select.rows import check_target, write
    from blip2cli.commands.select.selection import Selection
    from blip2cli.host.terminal import show_note
    from blip2cli.outputs.target import locked_output

    if not job.input.inputs:
        raise UsageError("no results are given", "For example: blip2 select answers.jsonl --where \"answer = 'yes'\".")
    selection = Selection.of(job)
    target = check_target(job, selection)
    _check_folder(job, selection)
    chosen = selection.numbers()
    if target is not None:
        with locked_output(target, keep=False):
            write(job, target, selection)
    if not job.output.quiet:
        show_note(f"{len(chosen):,} of {selection.total:,} rows selected{_where(job, target)}")
    return True if job.options.images_to is None else gather(job, selection)


def _where(job: Job, target: Target | None) -> str:
    return f", written to {job.output.out}" if target is not None and job.output.out is not None else ""


def _check_folder(job: Job, selection: Selection) -> None:
    """See that images may go to the folder that is named. Raises UsageError."""
    folder = job.options.images_to
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--images-to {folder} is not a folder", "Name a folder, which may be new.")
    outputs = {"--images-to": folder}
    check_apart(outputs, [*job.input.inputs, *selection.results.originals.files])
