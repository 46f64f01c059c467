"""A text file next to each image, as trainers read captions; or in the folder of --out,
named as the images.

There is no file of rows: an image that has its text file is done, and is skipped when the
run is started again. Only adding to existing files needs a journal, which records what
they held before they are changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from blip2cli.errors import UsageError, reason
from blip2cli.host.files import check_regular, new_temporary, real_path
from blip2cli.outputs.added_text import SEPARATOR, AddedText
from blip2cli.outputs.appended import AppendedFile, check_appended, stamp_in, unwritable
from blip2cli.outputs.commits import Commit, Header
from blip2cli.outputs.formats import Output
from blip2cli.outputs.journal import Journal, hidden_beside, read_journal
from blip2cli.outputs.jsonl import json_line
from blip2cli.outputs.layout import Layout
from blip2cli.outputs.stdout import open_stdout
from blip2cli.outputs.target import Target
from blip2cli.outputs.text_files import TextOwners, existing_fault, text_size
from blip2cli.records import Result, Row, RowError

if TYPE_CHECKING:
    from blip2cli.settings import OutputSettings

OF_ERRORS = ("errors", "errors_checksum")
"""The fields of a commit's state that hold the stamp of the file of errors."""

NOT_A_FILE = RowError("unsupported", "the image is not a file that a text can be next to; give --out FOLDER")
"""The error of an image that is not a file."""


def open_sidecar(target: Target, settings: OutputSettings, layout: Layout, header: Header) -> SidecarOutput:
    """The text files of a target; without --out, the rows also go to stdout."""
    shown = open_stdout(target, settings, layout, header) if settings.out is None else None
    return SidecarOutput(settings, layout, shown, header)


class SidecarOutput(Output):
    """Text files.

    Without --out, rows also go to `shown`; with it, those with errors go to
    FOLDER.errors.jsonl.
    """

    def __init__(self, settings: OutputSettings, layout: Layout, shown: Output | None, header: Header) -> None:
        self.out, self.layout, self.shown = settings.out, layout, shown
        self.existing = settings.existing or ("overwrite" if settings.overwrite else "skip")
        self.committed = Commit()
        self.errors: AppendedFile | None = None
        self.journal: Journal | None = None
        if self.out is not None:
            self.out.mkdir(exist_ok=True)
            errors = self.out.with_name(self.out.name + ".errors.jsonl")
            check_regular(errors)
            if self.existing == "append":
                self.journal = self._begun(self.out, settings.continues, header)
                self.committed = self.journal.commit
                check_appended(errors, stamp_in(self.committed.state, *OF_ERRORS), False, lambda data: True)
                self._remove_uncommitted(self.out, self.committed.state.get("touched", {}))
            self.errors = AppendedFile(errors, stamp_in(self.committed.state, *OF_ERRORS))
        self.done = self.committed
        self.text_owners = TextOwners()
        self.with_texts = 0
        self.committed = Commit(errors=self.done.errors)  # all rows are seen again, so that no two share a text file

    def wants(self, row: Row) -> bool:
        """Whether the image has to be captioned; called for all rows, in order."""
        is_done = row.index < self.done.rows
        if is_done:
            self._check_same(row)
        is_skipped = row.error is None and self._claim(row)
        if is_done:
            return False
        self.with_texts += is_skipped
        return not is_skipped

    def skipped(self) -> str:
        """The images that have a text file, if those are skipped."""
        if not self.with_texts:
            return ""
        images, have = ("image", "it has") if self.with_texts == 1 else ("images", "they have")
        where = f" in {self.out}" if self.out is not None else ""
        replaces = "replaces it" if self.with_texts == 1 else "replaces them"
        return f"{self.with_texts:,} {images} skipped: {have} a .txt{where}; --existing overwrite {replaces}"

    def _claim(self, row: Row) -> bool:
        """Claim the row's text file; returns whether the row is skipped because the file
        exists already."""
        try:
            path = self._text_path(row)
            if path is None or not self.text_owners.claim(path, row):
                return False
            return self.existing == "skip" and path.exists() and existing_fault(path) is None
        except (OSError, ValueError):  # no file can have this name, which is reported when it is written
            return False

    def _check_same(self, row: Row) -> None:
        """Check that the last row that is done has the recorded name.

        Raises UsageError.
        """
        if row.index == self.done.rows - 1 and row.name != self.done.last:
            raise UsageError(
                f"the input has changed: row {self.done.rows} was {self.done.last}, is {row.name}",
                "Give the same input as the interrupted run, or use --overwrite.",
            )

    def write(self, results: Sequence[Result]) -> None:
        written: list[Result] = []
        texts: list[tuple[Path, bytes | None]] = []
        for result in results:
            path = self._checked_path(result)
            if isinstance(path, RowError):
                written.append(replace(result, values=(None,) * len(result.values), error=path))
            else:
                written.append(result)
                lines = self.layout.caption_lines(result)
                texts.append((path, "\n".join(lines).encode("utf-8", "backslashreplace") if lines else None))
        place = self.out or Path("text files")
        try:
            self._record_additions([(path, text) for path, text in texts if text is not None])
            for path, text in texts:
                place = self.out or path
                if text is not None:
                    self._write_text(path, text)
                elif self.existing == "overwrite":  # an old text would pass for a new one
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(place, error) from None
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
        record = read_journal(journal.path) if any(out.iterdir()) else None  # the folder may have been deleted
        if record is not None and not record.commit.finished and record.commit != Commit() and not resume:
            raise UsageError(f"{out} was started and not finished", "Use --resume, or texts would be added twice.")
        if resume and record is not None:
            journal.resume()
        else:
            journal.start()
        return journal

    def _remove_uncommitted(self, out: Path, touched: Mapping[str, Sequence[Any]]) -> None:
        """Remove texts that were added without a commit.

        Raises UsageError for a file that was edited since.
        """
        additions = {out / name: AddedText(*saved) for name, saved in touched.items()}
        for path, addition in additions.items():
            addition.check(path)
        for path, addition in additions.items():
            addition.undo(path)

    def _record_additions(self, texts: Sequence[tuple[Path, bytes]]) -> None:
        """Commit what files hold and what they will hold, before texts are added to them."""
        if self.journal is None or self.out is None:
            return
        texts_of: dict[Path, list[bytes]] = {}
        for path, text in texts:
            texts_of.setdefault(path, []).append(text)
        touched = {}
        for path, added in texts_of.items():
            touched[os.path.relpath(path, self.out)] = list(astuple(AddedText.planned(path, added)))
        self.journal.add(replace(self.journal.commit, state={**self.journal.commit.state, "touched": touched}))

    def _commit(self, finished: bool) -> None:
        assert self.journal is not None and self.errors is not None
        self.errors.sync()
        if hasattr(os, "sync"):
            os.sync()  # once for all the small files
        stamp = self.errors.stamp
        state = dict(zip(OF_ERRORS, (stamp.size, stamp.checksum), strict=True))
        self.journal.add(replace(self.done, finished=finished, state=state))

    def _write_text(self, path: Path, text: bytes) -> None:
        if self.out is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        if self.existing == "append" and (size := text_size(path)):
            os.truncate(path, size)
            with open(path, "ab") as file:  # added at the end, so that a resumed run can remove it
                file.write(SEPARATOR + text)
            return
        temporary = new_temporary(path)
        temporary.write_bytes(text)
        os.replace(temporary, path)

    def _checked_path(self, result: Result) -> Path | RowError:
        """The path of a row's text file, or the row's error."""
        if result.error is not None:
            return result.error
        try:
            path = self._text_path(result.row)
            if path is None:
                return self.layout.failed(NOT_A_FILE)
            fault = self.text_owners.conflict(path, result.row) or existing_fault(path)
        except (OSError, ValueError) as error:  # a name from a manifest that no file can have
            return self.layout.failed(RowError("unsupported", reason(error)))
        return self.layout.failed(fault) if fault else path

    def _text_path(self, row: Row) -> Path | None:
        """The path of an image's text file; None if the image is not a file, and there is
        no --out."""
        path = _image_file(row)
        if self.out is None:
            return path.with_suffix(".txt") if path else None
        if path is not None:
            inside = os.path.relpath(os.path.realpath(path), os.path.realpath(self.out))
            if inside.split(os.sep)[0] != os.pardir:
                return (self.out / inside).with_suffix(".txt")
        parts = [part for part in PurePosixPath(row.name).parts if part not in ("/", "..", ".")]
        return self.out.joinpath(*parts).with_suffix(".txt") if parts else None


def _image_file(row: Row) -> Path | None:
    """The file of the row's image; None for images in archives, in bytes or behind URLs."""
    image = row.image
    if image is None or not image.path or image.size is not None or "://" in image.path:
        return None
    return Path(image.path)
