"""Arrow's own file format, which Feather (version 2) is too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip2cli.outputs.parquet import ParquetOutput

if TYPE_CHECKING:
    import pyarrow as pa


class ArrowOutput(ParquetOutput):
    """One Arrow IPC file, not compressed, so that it can be mapped into memory; committed as Parquet is."""

    as_parquet = False

    def _batches(self, path: Path, names: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
            for number in range(file.num_record_batches):
                yield file.get_batch(number)

    def _writer(self, file: object) -> Any:
        import pyarrow as pa

        return pa.ipc.new_file(file, self.schema)
