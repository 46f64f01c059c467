"""Arrow IPC manifests, of the stream and the file format, read by record batch and never whole."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from blip2cli.errors import UsageError, reason
from blip2cli.host import storage
from blip2cli.inputs.batches import BYTES_AT_ONCE, ROWS_AT_ONCE, broken, measured, rows_of
from blip2cli.inputs.columns import ColumnChoice, choose_columns
from blip2cli.inputs.manifest import Manifest
from blip2cli.records import Row

if TYPE_CHECKING:
    import pyarrow as pa

    Reader: TypeAlias = pa.RecordBatchFileReader | pa.RecordBatchStreamReader

MAGIC = b"ARROW1"
"""What the file format (Feather, too) begins with; the stream format does not."""


class ArrowManifest(Manifest):
    """One file of Arrow record batches. On this machine it is mapped: what is skipped is not read from the disk."""

    def __init__(self, name: str, columns: ColumnChoice) -> None:
        self.name = name
        self._lengths: list[int] | None = None
        self._schema: pa.Schema = self._open()[0].schema
        try:
            names: list[str] = self._schema.names
        except UnicodeDecodeError:
            raise UsageError(f"cannot read {name}: its column names are not UTF-8", "Create the file again.") from None
        self.columns = choose_columns(name, names, columns)

    def rows(self, start: int = 0) -> Iterator[Row]:
        first, number = 0, 0
        for length in self._batch_lengths() or () if start else ():
            if number + length > start:
                break
            first, number = first + 1, number + length
        reader, mapping = self._open()
        return rows_of(self.columns, _sliced(_batches(reader, first), start - number, mapping), number, start)

    def count(self) -> int | None:
        lengths = self._batch_lengths()
        return None if lengths is None else sum(lengths)

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([self._schema.field(name) for name in self.columns.carried])

    def measured(self, field: pa.Field) -> pa.Field:
        at = self._schema.get_field_index(field.name)
        return measured(self.name, field, _batches(self._open([at])[0]))

    def _batch_lengths(self) -> list[int] | None:
        """The rows of each batch; None for a remote stream, all of which would have to be fetched."""
        import pyarrow as pa

        if self._lengths is None:
            if storage.is_url(self.name) and isinstance(self._open()[0], pa.RecordBatchStreamReader):
                return None
            narrow = next((at for at, kind in enumerate(self._schema.types) if pa.types.is_primitive(kind)), 0)
            lengths: list[int] = []
            try:
                lengths += (len(batch) for batch in _batches(self._open([narrow])[0]))
            except (pa.ArrowException, OSError) as error:
                raise broken(self.name, sum(lengths), error) from None
            self._lengths = lengths
        return self._lengths

    def _open(self, fields: Sequence[int] = ()) -> tuple[Reader, mmap.mmap | None]:
        """A reader of all fields or of some, and the mapping that it reads, None where the file is remote."""
        import pyarrow as pa

        mapping = None
        try:
            file = storage.open_binary(self.name)
            of_file_format = file.read(len(MAGIC)) == MAGIC
            file.seek(0)
            if storage.is_url(self.name):
                source = pa.PythonFile(file)
            else:
                with file:
                    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                source = pa.BufferReader(mapping)
            options = pa.ipc.IpcReadOptions(included_fields=list(fields))
            return (pa.ipc.open_file if of_file_format else pa.ipc.open_stream)(source, options=options), mapping
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UsageError(
                f"cannot read {self.name}: {reason(error)}",
                storage.reading_hint(error, "Is it an Arrow or Feather file?"),
            ) from None


def metadata_of(name: str) -> Mapping[bytes, bytes] | None:
    """What is noted in a file of the file format, by keys. Raises OSError and Arrow's errors, also for a stream."""
    import pyarrow as pa

    with storage.open_binary(name) as file:
        metadata: Mapping[bytes, bytes] | None = pa.ipc.open_file(file).schema.metadata
        return metadata


def _batches(reader: Reader, first: int = 0) -> Iterator[pa.RecordBatch]:
    """The batches from the first-th on."""
    import pyarrow as pa

    if isinstance(reader, pa.RecordBatchFileReader):
        return map(reader.get_batch, range(first, reader.num_record_batches))
    return islice(reader, first, None)


def _sliced(batches: Iterator[pa.RecordBatch], skipped: int, mapping: mmap.mmap | None) -> Iterator[pa.RecordBatch]:
    """The batches in pieces; those with rows that are wanted are checked, for Arrow trusts what a file says.

    The pages of the mapping are released after each piece: they would stay in memory as long as the file is open.
    """
    for batch in batches:
        rows = max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE * len(batch) // max(batch.nbytes, 1)))
        for at in range(0, len(batch), rows):
            piece = batch.slice(at, rows)
            skipped -= len(piece)
            if skipped < 0:
                piece.validate(full=True)
            yield piece
            if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
                mapping.madvise(mmap.MADV_DONTNEED)
