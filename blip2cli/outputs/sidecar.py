"""A text file beside each image, as trainers read captions; or under --out, below the images' names.

There is no file of rows: what has its text file is done, and is passed over when the run is started again. Only adding
to files that are there needs a journal, which notes how long they were before they are touched.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from blip2cli.errors import UsageError, reason
from blip2cli.host.files import real_path, temporary_of
from blip2cli.outputs.appended import AppendedFile, check_appended, stamp_in, unwritable
from blip2cli.outputs.commits import Commit, Header
from blip2cli.outputs.formats import Output
from blip2cli.outputs.journal import Journal, hidden_beside, read_journal
from blip2cli.outputs.jsonl import json_line
from blip2cli.outputs.layout import Layout
from blip2cli.outputs.stamp import edited
from blip2cli.outputs.stdout import open_stdout
from blip2cli.outputs.target import Target
from blip2cli.records import Result, Row, RowError

if TYPE_CHECKING:
    from blip2cli.settings import OutputSettings

OF_ERRORS = ("errors", "errors_checksum")
"""Under which a commit has the stamp of the file of errors."""

SEPARATOR = ", "
"""What stands between a text that is there and one that is added: trainers separate tags with commas."""

LOOKED_AT = 4096
"""Bytes of a file in a text's place that decide whether it is a text."""

NO_PLACE = RowError("unsupported", "the image is not a file that a text can be next to; give --out FOLDER")
"""The error of an image that is not a file."""

PORTABLE_PIXMAP = re.compile(rb"P[1-6Ff]\s+(?:#[^\n]*\n\s*)*\d+\s+\d+\s")
"""What the images begin with that have no zero byte."""


def open_sidecar(target: Target, settings: OutputSettings, layout: Layout, header: Header) -> SidecarOutput:
    """The text files of a target; without --out their rows go to stdout too."""
    shown = open_stdout(target, settings, layout, header) if settings.out is None else None
    return SidecarOutput(settings, layout, shown, header)


class SidecarOutput(Output):
    """Text files. Without --out, rows go to `shown` too; with it, those that failed to FOLDER.errors.jsonl."""

    def __init__(self, settings: OutputSettings, layout: Layout, shown: Output | None, header: Header) -> None:
        self.out, self.layout, self.shown = settings.out, layout, shown
        self.existing = settings.existing or ("overwrite" if settings.overwrite else "skip")
        self.committed = Commit()
        self.errors: AppendedFile | None = None
        self.journal: Journal | None = None
        if self.out is not None:
            self.out.mkdir(exist_ok=True)
            errors = self.out.with_name(self.out.name + ".errors.jsonl")
            if self.existing == "append":
                self.journal = self._begun(self.out, settings.continues, header)
                self.committed = self.journal.commit
                check_appended(errors, stamp_in(self.committed.state, *OF_ERRORS), False, lambda data: True)
                self._remove_uncommitted(self.out, self.committed.state.get("touched", {}))
            self.errors = AppendedFile(errors, stamp_in(self.committed.state, *OF_ERRORS))
        self.done = self.committed
        self.text_owners = TextOwners()
        self.with_texts = 0
        self.committed = Commit(errors=self.done.errors)  # all rows are looked at, so that no two share a text file

    def wants(self, row: Row) -> bool:
        """Whether the image is to be captioned; called for all rows, in their order."""
        before = row.index < self.done.rows
        if before:
            self._check_same(row)
        if row.error is not None:
            return not before
        try:
            place = self._place(row)
            shared = place is not None and not self.text_owners.take(place, row)
            is_there = place is not None and text_fault(place) is None and place.exists()
        except (OSError, ValueError):  # no file can have this name, which is reported when it is written
            return not before
        if before:
            return False
        skip = self.existing == "skip" and is_there and not shared
        self.with_texts += skip
        return not skip

    def skipped(self) -> str:
        """The images that have a text file, if those are skipped."""
        if not self.with_texts:
            return ""
        images, have = ("image", "it has") if self.with_texts == 1 else ("images", "they have")
        where = f" in {self.out}" if self.out is not None else ""
        replaces = "replaces it" if self.with_texts == 1 else "replaces them"
        return f"{self.with_texts:,} {images} skipped: {have} a .txt{where}; --existing overwrite {replaces}"

    def _check_same(self, row: Row) -> None:
        """See that the last row that is done is the one on record. Raises UsageError."""
        if row.index == self.done.rows - 1 and row.name != self.done.last:
            raise UsageError(
                f"the input has changed: row {self.done.rows} was {self.done.last}, is {row.name}",
                "Give the same input as the interrupted run, or use --overwrite.",
            )

    def write(self, results: Sequence[Result]) -> None:
        placed = [(result, self._checked_place(result)) for result in results]
        written = [result if isinstance(place, Path) else _failed(result, place) for result, place in placed]
        good = [(place, self._text(result)) for result, place in placed if isinstance(place, Path)]
        try:
            self._record_touched(good)
            for place, text in good:
                self._write_text(place, text)
        except OSError as error:
            raise unwritable(self.out or Path("text files"), error) from None
        self.done = self.done.after(written)
        if self.shown is not None:
            self.shown.write(written)
        if self.errors is not None:
            for result in written:
                if result.error is not None:
                    self.errors.write(json_line(self.layout.record(result)))
        if self.journal is not None:
            self._commit(finished=False)

    def commit(self) -> None:
        if self.shown is not None:
            self.shown.commit()

    def finish(self) -> None:
        if self.errors is not None:
            self.errors.sync()
            if not self.errors.size:
                self.errors.path.unlink(missing_ok=True)
        if self.journal is not None and not self.done.finished:
            self._commit(finished=True)
        if hasattr(os, "sync"):
            os.sync()

    def _begun(self, out: Path, resume: bool, header: Header) -> Journal:
        journal = Journal(hidden_beside(real_path(out)), out, header)
        record = read_journal(journal.path) if any(out.iterdir()) else None  # a folder that was deleted is gone
        if record is not None and not record.commit.finished and record.commit != Commit() and not resume:
            raise UsageError(f"{out} was started and not finished", "Use --resume, or texts would be added twice.")
        if resume and record is not None:
            journal.resume()
        else:
            journal.start()
        return journal

    def _remove_uncommitted(self, out: Path, touched: Mapping[str, Sequence[Any]]) -> None:
        """Take away texts that were added without a commit. Raises UsageError for a file that was edited since."""
        for name, note in touched.items():
            Touched(*note).check(out / name)
        for name, note in touched.items():
            Touched(*note).restore(out / name)

    def _record_touched(self, texts: Sequence[tuple[Path, str]]) -> None:
        """Commit, before files are added to, what they hold and what they will hold."""
        if self.journal is None or self.out is None:
            return
        added: dict[Path, list[bytes]] = {}
        for place, text in texts:
            added.setdefault(place, []).append(_data(text))
        touched = {}
        for place, several in added.items():
            note = Touched.of(place, several)
            touched[os.path.relpath(place, self.out)] = [note.size, note.before, note.longer, note.after]
        self.journal.add(replace(self.journal.commit, state={**self.journal.commit.state, "touched": touched}))

    def _commit(self, finished: bool) -> None:
        assert self.journal is not None and self.errors is not None
        self.errors.sync()
        if hasattr(os, "sync"):
            os.sync()  # one for all the small files
        stamp = self.errors.stamp
        state = dict(zip(OF_ERRORS, (stamp.size, stamp.checksum), strict=True))
        self.journal.add(replace(self.done, finished=finished, state=state))

    def _write_text(self, place: Path, text: str) -> None:
        data = _data(text)
        if self.out is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
        if self.existing == "append" and (size := _size(place)):
            os.truncate(place, size)
            with open(place, "ab") as file:  # after what is there: a resumed run can cut it off again
                file.write(SEPARATOR.encode() + data)
            return
        temporary = temporary_of(place)
        temporary.write_bytes(data)
        os.replace(temporary, place)

    def _text(self, result: Result) -> str:
        value = self.layout.value(result, "caption", "captions")
        return value if isinstance(value, str) else "\n".join(value)

    def _checked_place(self, result: Result) -> Path | RowError:
        """Where a row's text is to be written, or the error of a row that has none."""
        if result.error is not None:
            return result.error
        try:
            place = self._place(result.row)
            if place is None:
                return self.layout.failed(NO_PLACE)
            fault = self.text_owners.fault(place, result.row) or text_fault(place)
        except (OSError, ValueError) as error:  # a name from a manifest that no file can have
            return self.layout.failed(RowError("unsupported", reason(error)))
        return self.layout.failed(fault) if fault else place

    def _place(self, row: Row) -> Path | None:
        """Where an image's text stands; None where it has no place."""
        image = row.image
        path = Path(image.path) if image and image.path and image.size is None and "://" not in image.path else None
        if self.out is None:
            return path.with_suffix(".txt") if path else None
        if path is not None:
            inside = os.path.relpath(os.path.realpath(path), os.path.realpath(self.out))
            if inside.split(os.sep)[0] != os.pardir:
                return (self.out / inside).with_suffix(".txt")
        parts = [part for part in PurePosixPath(row.name).parts if part not in ("/", "..", ".")]
        return self.out.joinpath(*parts).with_suffix(".txt") if parts else None


class TextOwners:
    """Whose text file is whose: the first row that asks for a place has it. Some 200 bytes a row."""

    def __init__(self) -> None:
        self.owners: dict[int, tuple[int, str]] = {}
        self.real_folder = lru_cache(1024)(os.path.realpath)
        self.ignores_case = lru_cache(1024)(_ignores_case)

    def take(self, place: Path, row: Row) -> bool:
        """Note that a row's text has this place; False where it is another's. Raises OSError."""
        return self.owners.setdefault(self._identity(place), (row.index, sys.intern(_suffix(row))))[0] == row.index

    def fault(self, place: Path, row: Row) -> RowError | None:
        """What is wrong where the place is another row's."""
        index, suffix = self.owners.get(self._identity(place), (row.index, ""))
        if index == row.index:
            return None
        if suffix == _suffix(row):
            return RowError("conflict", f"{place.name} is the text file of an earlier row")
        return RowError("conflict", f"{place.name} is the text file of {place.stem}{suffix}")

    def _identity(self, place: Path) -> int:
        """A number for a file's place, however it is spelled, in capitals too where the file system ignores them."""
        folder = self.real_folder(str(place.parent))
        name = place.name.casefold() if self.ignores_case(folder) else place.name
        return hash(os.path.join(folder, name))


def _suffix(row: Row) -> str:
    return PurePosixPath(row.image.path if row.image and row.image.path else row.name).suffix


def _ignores_case(folder: str) -> bool:
    """Whether a folder takes its own name in other letters for its name."""
    path, name = os.path.split(folder)
    try:
        return name.swapcase() != name and os.path.samefile(folder, os.path.join(path, name.swapcase()))
    except OSError:
        return False


def text_fault(place: Path) -> RowError | None:
    """Why what stands in a text's place is not to be touched: a folder, a device, an image. Raises OSError."""
    try:
        mode = os.stat(place).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        return RowError("conflict", f"{place.name} is {'a folder' if stat.S_ISDIR(mode) else 'not a file'}")
    with open(place, "rb") as file:
        start = file.read(LOOKED_AT)
    binary = b"\0" in start and not start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if binary or PORTABLE_PIXMAP.match(start):
        return RowError("conflict", f"{place.name} exists and is not a text")
    return None


@dataclass(frozen=True)
class Touched:
    """A text file that is about to be added to: its size without white space at its end, None where there is none, and
    what it will have; checksums of both.
    """

    size: int | None
    before: str
    longer: int
    after: str

    @staticmethod
    def of(place: Path, texts: Sequence[bytes]) -> Touched:
        size = _size(place)
        kept = after = place.read_bytes()[:size] if size is not None else b""
        for text in texts:
            there = after.rstrip()
            after = there + SEPARATOR.encode() + text if there else text
        return Touched(size, _checksum(kept), len(after), _checksum(after))

    def check(self, place: Path) -> None:
        """See that a file is as it was, or as it was to become, wholly or in part. Raises UsageError."""
        data = place.read_bytes() if place.exists() else None
        if data is None and self.size is not None:
            raise edited(place, "is gone")
        if data is None or _checksum(data) == self.after:
            return
        added = data[self.size or 0 :]
        begins = SEPARATOR.encode() if self.size else b""
        torn = added.startswith(begins[: len(added)]) and len(data) < self.longer
        if _checksum(data[: self.size or 0]) != self.before or not (torn or not added.strip()):
            raise edited(place, "is not what was committed")

    def restore(self, place: Path) -> None:
        """Make a file what it was. Raises OSError."""
        if self.size is None:
            place.unlink(missing_ok=True)
        else:
            os.truncate(place, self.size)


def _data(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _checksum(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _size(place: Path) -> int | None:
    """The length of a text without white space at its end; None where there is no file."""
    return len(place.read_bytes().rstrip()) if place.exists() else None


def _failed(result: Result, error: RowError) -> Result:
    return replace(result, values=(None,) * len(result.values), error=error)
