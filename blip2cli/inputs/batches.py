"""Arrow record batches as rows: what Parquet and Arrow manifests share.

Nothing here opens a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from blip2cli.errors import Blip2Error, reason
from blip2cli.inputs.columns import ManifestColumns
from blip2cli.inputs.fields import field_at_best, field_of, merge_fields
from blip2cli.records import Row

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_MEASURED = 65_536
"""Values of a column of numbers that are looked at together."""

ROWS_AT_ONCE = 128
"""Rows decoded together; bounds memory where the manifest holds the images' bytes."""


BYTES_AT_ONCE = 16 << 20
"""Bytes of rows decoded together, where their size is known."""


def rows_of(columns: ManifestColumns, batches: Iterable[pa.RecordBatch], number: int, start: int) -> Iterator[Row]:
    """The rows from the start-th on, of batches of which the first begins with the
    number-th.

    Raises Blip2Error where the file is broken in the middle.
    """
    import pyarrow as pa

    try:
        for batch in batches:
            skipped = min(max(start - number, 0), len(batch))
            number += skipped
            for record in _records(batch[skipped:]):
                yield columns.row(record, number)
                number += 1
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise broken(columns.manifest, number, error) from None


def measured(manifest: str, field: pa.Field, batches: Iterable[pa.RecordBatch]) -> pa.Field:
    """The field of a column, marked as the values in the batches are, which hold nothing
    else. Raises Blip2Error."""
    import pyarrow as pa

    number = 0
    marked = field_at_best(field)
    try:
        for batch in batches:
            column = batch.column(0)
            column.validate(full=True)
            marked = merge_fields(marked, field_of(field.name, column))
            number += len(batch)
    except (pa.ArrowException, OSError) as error:
        raise broken(manifest, number, error) from None
    return marked


def broken(manifest: str, number: int, error: Exception) -> Blip2Error:
    """What to raise for a file of which only the first `number` rows can be read."""
    return Blip2Error(f"{manifest} is damaged after row {number}: {reason(error)}", "Create the file again.")


def _records(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    columns = [_values(column) for column in batch.columns]
    for values in zip(*columns, strict=True):
        yield dict(zip(batch.schema.names, values, strict=True))


def _values(column: pa.Array) -> list[Any]:
    """Python values; arrays of tensors; Arrow's own scalars where Python has no such
    value (nanoseconds, far dates)."""
    import pyarrow as pa

    if isinstance(column.type, pa.FixedShapeTensorType):
        return [scalar.to_numpy() if scalar.is_valid else None for scalar in column]
    if not _in_nanoseconds(column.type):
        try:
            values: list[Any] = column.to_pylist()
            return values
        except (ValueError, OverflowError):
            pass
    return [scalar if scalar.is_valid else None for scalar in column]


def _in_nanoseconds(kind: pa.DataType) -> bool:
    """Whether values of a type are times that count nanoseconds, for which Python has no
    type."""
    import pyarrow as pa

    has_unit = pa.types.is_timestamp(kind) or pa.types.is_time(kind) or pa.types.is_duration(kind)
    return has_unit and kind.unit == "ns"
