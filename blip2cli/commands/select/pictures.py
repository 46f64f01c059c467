"""The images of selected rows, copied or linked into a folder, where nothing is overwritten."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path, PurePosixPath

from blip2cli.commands.select.options import SelectOptions
from blip2cli.commands.select.selection import Selection
from blip2cli.errors import ImageError
from blip2cli.host.files import cannot_write, new_temporary
from blip2cli.host.terminal import Progress, show_note, show_warning
from blip2cli.images.decode import bytes_of, suffix_by_content
from blip2cli.inputs.image_formats import is_image
from blip2cli.records import Row, RowError
from blip2cli.settings import Job

SHOWN = 5
"""Images that were not found, of which a line is shown."""

LONGEST_STEM = 200
"""Bytes of the name of a file without its suffix; file systems take 255 with all that is added."""

NOT_A_FILE = RowError("unsupported", "it is not a file of its own, so it cannot be linked; leave out --link")


@dataclass
class Gathered:
    """What became of the images: how many are new in the folder, were there already, or failed."""

    new: int = 0
    there: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    shown: list[str] = field(default_factory=list)

    def fail(self, row: Row, error: RowError) -> None:
        """Count an image that could not be had."""
        self.failed[error.kind] += 1
        if len(self.shown) < SHOWN:
            self.shown.append(f"{row.name}: {error}")


def gather(job: Job, selection: Selection) -> bool:
    """Put the images of the selected rows into the folder of --images-to; returns whether all were found.

    An image of several rows is taken once. Raises OutputError.
    """
    folder = job.options_as(SelectOptions).images_to
    assert folder is not None
    gathered = Gathered()
    try:
        folder.mkdir(exist_ok=True)
        with closing(Progress(job.output.quiet)) as progress:
            progress.begin(len(selection.numbers), 0)
            for row in selection.results.originals.of(_each_once(selection)):
                _take(row, folder, job.options_as(SelectOptions).link, gathered)
                progress.advance(1, 0)
    except OSError as error:
        raise cannot_write(folder, error) from None
    _show(folder, job, gathered)
    return not gathered.failed


def _each_once(selection: Selection) -> Iterator[Row]:
    """The selected rows, the first of each image."""
    names: set[str] = set()
    for row in selection.rows():
        if row.name not in names:
            names.add(row.name)
            yield row


def _take(row: Row, folder: Path, link: bool, gathered: Gathered) -> None:
    """Put one image into the folder. Raises OSError."""
    if row.error is not None or row.image is None:
        gathered.fail(row, row.error or RowError("missing", "its image was not found"))
        return
    path = row.image.path if row.image.size is None else None
    if link and (path is None or "://" in path):
        gathered.fail(row, NOT_A_FILE)
        return
    try:
        data = bytes_of(row.image)
        suffix = suffix_by_content(data)
    except ImageError as error:
        gathered.fail(row, error.error)
        return
    if _put(folder, _name_of(row, suffix), data, os.path.abspath(path) if link and path else None):
        gathered.new += 1
    else:
        gathered.there += 1


def _put(folder: Path, name: str, data: bytes, source: str | None) -> bool:
    """Give an image the first name that is free; whether it was not in the folder before. Raises OSError.

    Args:
        folder: where it goes.
        name: the name that it should have.
        data: its bytes.
        source: the file that a link leads to; None for a copy.
    """
    stem, suffix = os.path.splitext(name)
    for number in count(1):
        place = folder / (name if number == 1 else f"{stem}-{number}{suffix}")
        if os.path.lexists(place):
            if _is_same(place, data, source):
                return False
        elif _written(place, data, source):
            return True
    raise AssertionError("numbers do not end")


def _is_same(place: Path, data: bytes, source: str | None) -> bool:
    """Whether the image is there already, from an earlier run."""
    if source is not None:
        return place.is_symlink() and os.readlink(place) == source
    if place.is_symlink() or not place.is_file():
        return False
    return place.stat().st_size == len(data) and place.read_bytes() == data


def _written(place: Path, data: bytes, source: str | None) -> bool:
    """Write an image, or a link to it; False if something else has taken the name meanwhile. Raises OSError."""
    try:
        if source is not None:
            os.symlink(source, place)
            return True
        temporary = new_temporary(place)
        with open(temporary, "xb") as file:
            file.write(data)
        try:
            os.link(temporary, place)  # which does not replace anything
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            place.touch(exist_ok=False)
            os.replace(temporary, place)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError:
        return False
    return True


def _name_of(row: Row, suffix: str) -> str:
    """A plain name for an image: the last part of its row's name, with a suffix of images."""
    last = re.sub(r"[^\w.,()@+ -]", "_", PurePosixPath(row.name).name).strip(" ").lstrip(".") or "image"
    stem, own = os.path.splitext(last)
    if not is_image(last):
        stem, own = last, suffix
    return f"{stem.encode()[-LONGEST_STEM:].decode(errors='ignore')}{own}"


def _show(folder: Path, job: Job, gathered: Gathered) -> None:
    """Say what was done, and which images were not found."""
    for line in gathered.shown:
        show_warning(line)
    failed = gathered.failed.total()
    if failed > len(gathered.shown):
        show_warning(f"and {failed - len(gathered.shown):,} more")
    if failed:
        show_warning("--images and --image-root say where to look for images")
    if not job.output.quiet:
        done = "linked" if job.options_as(SelectOptions).link else "copied"
        images = "image" if gathered.new == 1 else "images"
        there = f", {gathered.there:,} there already" if gathered.there else ""
        show_note(f"{gathered.new:,} {images} {done} to {folder}{there}, {failed:,} not found")
