"""A folder of images with metadata.jsonl, as Hugging Face's imagefolder reads it.

Images below the folder are named where they are; others are copied into it. What failed is in metadata.errors.jsonl,
as the reader takes no row without an image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

from blip2cli.errors import ImageError
from blip2cli.host.files import new_temporary, publish
from blip2cli.images.decode import bytes_of, suffix_by_content
from blip2cli.outputs.appended import AppendedFile, check_appended, stamp_in, unwritable
from blip2cli.outputs.journal import CommitLog
from blip2cli.outputs.jsonl import JsonlOutput, json_line
from blip2cli.outputs.layout import Layout
from blip2cli.records import Result, Row

ERRORS = "metadata.errors.jsonl"

OF_ERRORS = ("errors", "errors_checksum")
"""Under which a commit has the stamp of that file."""


class ImageFolderOutput(JsonlOutput):
    """metadata.jsonl, with `file_name` in place of `image`, and the errors, which say their place as `row`."""

    def __init__(self, out: Path, layout: Layout, journal: CommitLog) -> None:
        self.folder = out.parent
        super().__init__(out, layout, journal)
        self.errors = AppendedFile(self.folder / ERRORS, stamp_in(journal.commit.state, *OF_ERRORS))

    def check_committed(self) -> None:
        super().check_committed()
        commit = self.journal.commit
        stamp = stamp_in(commit.state, *OF_ERRORS)
        check_appended(self.folder / ERRORS, stamp, commit.finished, lambda data: True)

    @property
    def keys(self) -> list[str]:
        return ["file_name", *self.layout.names[1:-1]]

    def text(self, results: Sequence[Result]) -> bytes:
        lines = []
        for result in results:
            record, error, name = self.layout.record(result), result.error, ""
            try:
                name = self._place(result.row) if error is None else ""
            except ImageError as failure:
                error = self.layout.failed(failure.error)
            if error is None:
                record.pop("error")
                record.pop("image")
                lines.append(json_line({"file_name": name, **record}))
            else:
                self.errors.write(json_line({"row": result.row.index, "image": result.row.name, "error": str(error)}))
        return b"".join(lines)

    def finish(self) -> None:
        super().finish()
        if not self.errors.size:
            self.errors.path.unlink(missing_ok=True)

    def more_state(self) -> dict[str, Any]:
        self.errors.sync()
        stamp = self.errors.stamp
        return dict(zip(OF_ERRORS, (stamp.size, stamp.checksum), strict=True))

    def _place(self, row: Row) -> str:
        """The image's path below the folder; it is copied there if it is elsewhere. Raises ImageError."""
        path = row.image.path if row.image and not row.image.offset and row.image.size is None else None
        inside = os.path.relpath(os.path.realpath(path), os.path.realpath(self.folder)) if path else ".."
        if inside.split(os.sep)[0] != os.pardir:
            return PurePosixPath(inside).as_posix()
        assert row.image is not None
        data = bytes_of(row.image)
        stem = PurePosixPath(re.sub(r"[^\w.-]+", "_", row.name)).stem.lstrip(".")[-80:]
        suffix = suffix_by_content(data)
        try:
            name = next(name for name in _names(f"images/{row.index:09}-{stem}", suffix) if self._is_free(name, data))
            target = self.folder / name
            target.parent.mkdir(exist_ok=True)
            temporary = new_temporary(target)
            temporary.write_bytes(data)
            publish(temporary, target)
        except OSError as error:
            raise unwritable(self.folder / "images", error) from None
        return name

    def _is_free(self, name: str, data: bytes) -> bool:
        """Whether nothing else has the name: no image that is there is written over, it may be an input."""
        place = self.folder / name
        if not os.path.lexists(place):
            return True
        return place.is_file() and place.stat().st_size == len(data) and place.read_bytes() == data


def _names(stem: str, suffix: str) -> Iterator[str]:
    """The names that a copy may have, the first that is free."""
    yield f"{stem}{suffix}"
    yield from (f"{stem}-{number}{suffix}" for number in count(1))
