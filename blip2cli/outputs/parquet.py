"""A Parquet file: committed as parts beside it, joined to one file at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip2cli.errors import OutputError, UsageError
from blip2cli.host.files import cannot_write, write_whole
from blip2cli.outputs.appended import GO_ON
from blip2cli.outputs.formats import Output
from blip2cli.outputs.journal import CommitLog, parts_folder
from blip2cli.outputs.layout import Layout, written
from blip2cli.outputs.stamp import Stamp, edited
from blip2cli.records import Result

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP_BYTES = 8 << 20
ROW_GROUP_ROWS = 65_536
"""A row group, and so a part, is closed at either bound: writing one takes several times its size in memory."""


ROWS_READ = 4096
"""Rows of a part read at once while joining."""


class ParquetOutput(Output):
    """One Parquet file. A commit writes a part; nothing stands under the file's name before it is whole.

    With other `_batches` and `_writer` it is a file of another kind; `suffix` is that of parts unlike it, and
    `as_parquet` says whether its types are those that Parquet has.
    """

    suffix = ""
    as_parquet = True

    def __init__(self, out: Path, layout: Layout, journal: CommitLog) -> None:
        from blip2cli.outputs.arrow import schema_of

        self.out = out
        self.layout = layout
        self.journal = journal
        self.schema = schema_of(layout, self.as_parquet)
        self.done = self.committed = journal.commit
        self.parts: int = journal.commit.state.get("parts", 0)
        self.pending: list[pa.Table] = []
        self.published: list[list[Any]] = journal.commit.state.get("published", [])
        self.folder = parts_folder(out)
        self.check_committed()

    def check_committed(self) -> None:
        """Check that what is there is what was committed. Raises UsageError.

        An unfinished run's file may stand there as it was before the run, or as it was about to be published.
        """
        state = self.journal.commit.state
        if self.done.finished:
            if not self.out.exists():
                raise edited(self.out, "is gone")
            if "checksum" in state and not Stamp(state["size"], state["checksum"]).fits(self.out):
                raise edited(self.out, "is not what was committed")
            return
        missing = next((path for path in self._parts() if not path.exists()), None)
        if missing is not None:
            raise UsageError(f"{self.out} cannot be resumed: {missing} is gone", "Use --overwrite.")
        if self.out.exists() and not any(Stamp(*known).fits(self.out) for known in self.published):
            raise edited(self.out, "is not what was committed")

    def write(self, results: Sequence[Result]) -> None:
        from blip2cli.outputs.arrow import table_of

        if rows := written(results):
            self.pending.append(table_of(rows, self.layout, self.schema))
        self.done = self.done.after(results)
        if _full(self.pending):
            self.commit()

    def commit(self) -> None:
        import pyarrow as pa

        if self.done.rows == self.journal.commit.rows:
            return
        try:
            self.folder.mkdir(exist_ok=True)
            if self.journal.commit.finished:
                self._reopen()
            if self.pending:
                self._write(self._part(self.parts), iter([pa.concat_tables(self.pending)]))
                self.parts += 1
            self.journal.add(replace(self.done, state=self._unfinished))
        except OSError as error:
            raise self._unwritable(error) from None
        self.pending = []

    def finish(self) -> None:
        self.commit()
        if not self.done.finished:
            try:
                self._write_whole(self._joined())
                self.journal.add(replace(self.done, finished=True, state={"parts": 0, **Stamp.of(self.out).state}))
            except OSError as error:
                raise self._unwritable(error) from None
        shutil.rmtree(self.folder, ignore_errors=True)

    def records(self) -> Iterator[dict[str, Any]]:
        from blip2cli.outputs.arrow import records_of

        for table in self._whole() if self.journal.commit.finished else self._tables(self._parts()):
            yield from records_of(table)

    def values(self, *names: str) -> Iterator[tuple[Any, ...]]:
        for path in [self.out] if self.journal.commit.finished else self._parts():
            for batch in self._batches(path, names):
                yield from zip(*(batch.column(name).to_pylist() for name in names), strict=True)

    def _reopen(self) -> None:
        """Make the file of an earlier, finished run the first part of this one, which it stays until it is replaced."""
        self._accept(self.out)
        first = self._part(0)
        first.unlink(missing_ok=True)
        try:
            os.link(self.out, first)
        except OSError:  # a file system without links
            shutil.copyfile(self.out, first)
        self.parts = 1

    def _write_whole(self, tables: Iterator[pa.Table]) -> None:
        """Put the rows in their final form."""
        self._write(self.out, tables, self._announce)

    @property
    def _unfinished(self) -> dict[str, Any]:
        return {"parts": self.parts, "published": self.published}

    def _accept(self, path: Path) -> None:
        """Remember a file that may stand under the output's name."""
        stamp = Stamp.of(path)
        self.published = [*self.published, [stamp.size, stamp.checksum]]

    def _announce(self, temporary: Path) -> None:
        """Commit what the file holds that is about to be published."""
        self._accept(temporary)
        self.journal.add(replace(self.done, state=self._unfinished))

    def _whole(self) -> Iterator[pa.Table]:
        """The rows of the final form."""
        return self._tables([self.out])

    def _joined(self) -> Iterator[pa.Table]:
        """The parts, in row groups of a good size."""
        import pyarrow as pa

        waiting: list[pa.Table] = []
        for table in self._tables(self._parts()):
            waiting.append(table)
            if _full(waiting):
                yield pa.concat_tables(waiting)
                waiting = []
        if waiting:
            yield pa.concat_tables(waiting)

    def _parts(self) -> list[Path]:
        return [self._part(number) for number in range(self.parts)]

    def _tables(self, paths: Sequence[Path]) -> Iterator[pa.Table]:
        import pyarrow as pa

        for path in paths:
            for batch in self._batches(path):
                yield pa.Table.from_batches([batch]).replace_schema_metadata(self.schema.metadata)

    def _batches(self, path: Path, names: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows of a file; with `names`, at least these columns of them."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(path, pre_buffer=False) as file:
            yield from file.iter_batches(batch_size=ROWS_READ, columns=names and list(names), use_threads=False)

    def _write(self, path: Path, tables: Iterator[pa.Table], announce: Callable[[Path], None] | None = None) -> None:
        def write(file: object) -> None:
            with self._writer(file) as writer:
                for table in tables:
                    writer.write_table(table)
                    release_unused()

        write_whole(path, write, announce)

    def _writer(self, file: object) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        words = [field.name for field in self.schema if not isinstance(field.type, pa.FixedShapeTensorType)]
        return pq.ParquetWriter(file, self.schema, compression="zstd", use_dictionary=words)

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:08}{self.suffix or self.out.suffix}"

    def _unwritable(self, error: OSError) -> OutputError:
        return cannot_write(self.out, error, GO_ON)


def release_unused() -> None:
    """Give memory that Arrow has freed, and keeps for later, back to the system: each thread keeps its own."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()


def _full(tables: Sequence[pa.Table]) -> bool:
    return sum(table.nbytes for table in tables) >= ROW_GROUP_BYTES or sum(map(len, tables)) >= ROW_GROUP_ROWS
