"""WebDataset shards: images with their captions in a tar, and all rows, bad ones too, in a Parquet file beside it."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from blip2cli.errors import ImageError
from blip2cli.images.decode import bytes_of, suffix_by_content
from blip2cli.outputs.appended import AppendedFile, stamp_in
from blip2cli.outputs.commits import Commit
from blip2cli.outputs.formats import Output
from blip2cli.outputs.journal import CommitLog
from blip2cli.outputs.jsonl import json_line
from blip2cli.outputs.layout import Layout
from blip2cli.outputs.parquet import ParquetOutput
from blip2cli.records import Result, Row

END = bytes(2 * tarfile.BLOCKSIZE)
"""What closes a tar."""


class _WithTar:
    """The journal as the table of a shard sees it: each commit takes the tar's size with it."""

    def __init__(self, journal: CommitLog, output: WebDatasetOutput) -> None:
        self.journal, self.output = journal, output
        self.commit: Commit = journal.commit

    def add(self, commit: Commit) -> None:
        self.output.tar.sync()
        tar = self.output.tar.stamp
        state = {
            **commit.state,
            "tar": tar.size,
            "tar_checksum": tar.checksum,
            "body": self.output.body,
            "key": self.output.key,
        }
        self.journal.add(replace(commit, state=state))
        self.commit = self.journal.commit


class WebDatasetOutput(Output):
    """One shard: KEY.jpg, KEY.txt and KEY.json of each good row in a tar, as img2dataset lays them out.

    KEY is the input's column `key`, or where there is none the number of the row.
    """

    def __init__(self, out: Path, layout: Layout, journal: CommitLog) -> None:
        self.layout = layout
        self.committed: Commit = journal.commit
        state = journal.commit.state
        self.tar = AppendedFile(out, stamp_in(state, "tar" if "tar" in state else "size", "tar_checksum"))
        self.body: int = state.get("body", 0)
        self.key: str = state.get("key", "")
        self.table = ParquetOutput(out.with_suffix(".parquet"), layout, _WithTar(journal, self))

    def write(self, results: Sequence[Result]) -> None:
        self._remove_end()
        packed = [self._pack(result) for result in results]
        self.body = self.tar.size
        self.table.write(packed)

    def commit(self) -> None:
        self.table.commit()

    def finish(self) -> None:
        self.table.commit()
        if not self.table.done.finished:
            self._remove_end()
            self.tar.write(END)
        self.table.finish()

    def _remove_end(self) -> None:
        if self.tar.size > self.body:
            self.tar.cut(self.body)

    def records(self) -> Iterator[dict[str, Any]]:
        return self.table.records()

    def values(self, *names: str) -> Iterator[tuple[Any, ...]]:
        return self.table.values(*names)

    def _pack(self, result: Result) -> Result:
        """Put a row into the tar; returns it, with an error if its image can no longer be read."""
        if result.error is not None or result.row.image is None:
            return result
        texts = self.layout.caption_lines(result)
        if not texts:  # none was good enough: the row stands in the table alone
            return result
        try:
            data = bytes_of(result.row.image)
            suffix = suffix_by_content(data)
        except ImageError as error:
            return replace(result, values=(None,) * len(result.values), error=self.layout.failed(error.error))
        self.key = self._key(result.row)
        record = self.layout.record(result)
        record.pop("error")
        image = _member(self.key + suffix, data)
        text = _member(self.key + ".txt", "\n".join(texts).encode("utf-8", "backslashreplace"))
        metadata = _member(self.key + ".json", json_line({"key": self.key, **record}))
        self.tar.write(image + text + metadata)
        return result

    def _key(self, row: Row) -> str:
        """A key that no neighbour has: readers take what stands together under one key for one sample."""
        key = row.columns.get("key")
        if isinstance(key, str) and key != self.key and _is_plain(key):
            return key
        number = f"{row.index:09}"
        return number if number != self.key else f"{number}_{self.tar.size}"


def _is_plain(key: str) -> bool:
    folder, name = posixpath.split(key)
    return (
        bool(name)
        and "." not in name
        and not key.startswith("/")
        and ".." not in folder.split("/")
        and key.isprintable()
    )


def _member(name: str, data: bytes) -> bytes:
    """A file as it stands in a tar."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    padding = bytes(-len(data) % tarfile.BLOCKSIZE)
    return info.tobuf(tarfile.PAX_FORMAT) + data + padding
