"""Tables handed over in Python: DataFrames of pandas and polars, Arrow tables, Hugging Face data sets.

None of these packages is imported here: who has such an object has imported it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from blip2cli.errors import ImageError, UsageError
from blip2cli.inputs.columns import ColumnChoice, choose_columns, image_column
from blip2cli.inputs.manifest import Manifest
from blip2cli.inputs.objects import NotAnImage, path_or_bytes
from blip2cli.records import Row

Records = Callable[[str | None], Iterator[Mapping[str, Any]]]
"""The rows as mappings, given the image's column, which need not be decoded."""


@dataclass(frozen=True)
class MemoryTable:
    """A table in memory, before it is known what its columns mean.

    Args:
        kind: what it is, as messages name it.
        names: its columns.
        length: how many rows it has; None if only reading tells.
        records: its rows.
    """

    kind: str
    names: Sequence[str]
    length: int | None
    records: Records

    def open(self, columns: ColumnChoice) -> MemoryRows:
        """The table as a source. Raises UsageError if it does not have the columns."""
        return MemoryRows(self, columns)


class MemoryRows(Manifest):
    """The rows of a table in memory; images without a path are named #0, #1 and so on."""

    def __init__(self, table: MemoryTable, columns: ColumnChoice) -> None:
        self.table, self.name = table, table.kind
        names = list(table.names)
        if columns.image is None and columns.image_required and image_column(names, columns) is None:
            raise UsageError(
                f"{table.kind} has no column that is known to hold images",
                f"Name it, for example image_column={names[0] if names else 'image'!r}. It has: {', '.join(names)}.",
            )
        self.columns = replace(choose_columns(table.kind, names, columns), manifest="")

    @property
    def files(self) -> Sequence[str]:
        return ()

    def count(self) -> int | None:
        return self.table.length

    def rows(self, start: int = 0) -> Iterator[Row]:
        image = self.columns.image
        for number, record in enumerate(islice(self.table.records(image), start, None), start):
            values = {name: _value(value) for name, value in record.items()}
            fault = None
            if image is not None:
                try:
                    values[image] = self._cell(values[image], number)
                except ImageError as error:
                    values[image], fault = None, error.error
            row = self.columns.row(values, number)
            yield row if fault is None else replace(row, error=fault)

    def _cell(self, value: Any, number: int) -> str | bytes | Mapping[str, Any] | None:
        """An image as manifests hold it. Raises NotAnImage, ImageError for a bad one."""
        if isinstance(value, Mapping):
            return value
        try:
            return path_or_bytes(value)
        except NotAnImage as error:
            raise NotAnImage(f"column {self.columns.image} of row {number} {error.message}", error.hint) from None


def _value(value: Any) -> Any:
    """A value; None for what pandas has in the place of one that is missing."""
    is_nan = isinstance(value, float) and value != value
    return None if is_nan or type(value).__name__ in ("NAType", "NaTType") else value


def table_in_memory(value: Any) -> MemoryTable | None:
    """A table as `open_source` takes it; None for what is not a table. Raises UsageError for several in one."""
    for kind in type(value).__mro__:
        opener = TABLES.get((kind.__module__.partition(".")[0], kind.__name__))
        if opener is not None:
            return opener(value)
    return None


def _of_pandas(frame: Any) -> MemoryTable:
    names = list(map(str, frame.columns))

    def records(image: str | None) -> Iterator[Mapping[str, Any]]:
        for values in frame.itertuples(index=False, name=None):
            yield dict(zip(names, values, strict=True))

    return MemoryTable("the DataFrame", names, len(frame), records)


def _of_polars(frame: Any) -> MemoryTable:
    return MemoryTable("the DataFrame", frame.columns, len(frame), lambda image: frame.iter_rows(named=True))


def _of_arrow(table: Any) -> MemoryTable:
    def records(image: str | None) -> Iterator[Mapping[str, Any]]:
        for batch in table.to_batches(max_chunksize=128):
            yield from batch.to_pylist()

    return MemoryTable("the Arrow table", table.column_names, len(table), records)


def _of_record_batch(batch: Any) -> MemoryTable:
    import pyarrow as pa

    return _of_arrow(pa.Table.from_batches([batch]))


def _of_reader(reader: Any) -> MemoryTable:
    def records(image: str | None) -> Iterator[Mapping[str, Any]]:
        for batch in reader:
            yield from batch.to_pylist()

    return MemoryTable("the Arrow reader", reader.schema.names, None, records)


def _of_dataset(dataset: Any) -> MemoryTable:
    def records(image: str | None) -> Iterator[Mapping[str, Any]]:
        return iter(_not_decoded(dataset, image))

    return MemoryTable("the data set", dataset.column_names, len(dataset), records)


def _of_stream(dataset: Any) -> MemoryTable:
    names = dataset.column_names or list(next(iter(dataset), {}))
    return MemoryTable("the data set", names, None, lambda image: iter(_not_decoded(dataset, image)))


def _of_splits(splits: Any) -> MemoryTable:
    """The only split. Raises UsageError where there are several, or none."""
    names = list(splits)
    if len(names) == 1:
        only = splits[names[0]]
        return TABLES["datasets", type(only).__name__](only)
    if not names:
        raise UsageError("the data set has no splits", "Give a data set with rows.")
    raise UsageError(
        f"the data set has several splits: {', '.join(names)}", f"Give one, for example dataset[{names[0]!r}]."
    )


def _not_decoded(dataset: Any, image: str | None) -> Any:
    """The data set with its images as the bytes of their files, which are decoded here, in other processes."""
    feature: Any = (dataset.features or {}).get(image)
    if type(feature).__name__ != "Image" or not feature.decode:
        return dataset
    return dataset.cast_column(image, replace(feature, decode=False))


TABLES: Mapping[tuple[str, str], Callable[[Any], MemoryTable]] = {
    ("pandas", "DataFrame"): _of_pandas,
    ("polars", "DataFrame"): _of_polars,
    ("pyarrow", "Table"): _of_arrow,
    ("pyarrow", "RecordBatch"): _of_record_batch,
    ("pyarrow", "RecordBatchReader"): _of_reader,
    ("datasets", "Dataset"): _of_dataset,
    ("datasets", "IterableDataset"): _of_stream,
    ("datasets", "DatasetDict"): _of_splits,
    ("datasets", "IterableDatasetDict"): _of_splits,
}
"""Package and class → how its rows are read."""
