"""Which rows of results are selected: their numbers, found in one pass, and the rows themselves in another."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from blip2cli.commands.results.rows import ResultRows
from blip2cli.commands.select.options import SelectOptions
from blip2cli.commands.select.where import Condition
from blip2cli.errors import UsageError
from blip2cli.records import Row
from blip2cli.settings import Job

if TYPE_CHECKING:
    import pyarrow as pa

WHOLE = re.compile(r"\s*[+-]?(\d+)\s*", re.ASCII)
"""A whole number, as CSV has it."""

EXACT_IN_FLOATS = 15
"""Digits up to which floats hold every whole number."""

TOO_LONG = 19
"""Digits of whole numbers that 64 bits may not hold."""

ROWS_AT_ONCE = 4096
"""Rows that the condition is applied to together."""

LONGEST_EXACT = 38
"""Digits of the longest whole numbers that DuckDB compares exactly."""

IMAGE = "image"


@dataclass(frozen=True)
class Selection:
    """The rows of results that a condition selects.

    Args:
        results: the result files.
        condition: what selected rows meet; None for all rows.
        limit: how many are selected at most.
    """

    results: ResultRows
    condition: Condition | None
    limit: int | None

    @classmethod
    def of(cls, job: Job) -> Selection:
        """The selection of a job. Raises UsageError for results that cannot be read, and conditions that are wrong."""
        options = job.options_as(SelectOptions)
        results = ResultRows(tuple(map(str, job.input.inputs)), options)
        names = _names_in(results)
        condition = None if options.where is None else Condition(options.where, names)
        return cls(results, condition, options.limit)

    @cached_property
    def names(self) -> list[str]:
        """The columns that a condition may name."""
        return _names_in(self.results)

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns' types but for the image's."""
        schema: pa.Schema = self.results.source.schema()
        return schema

    @cached_property
    def numbers(self) -> array[int]:
        """The numbers of the selected rows, in their order. Raises UsageError if the condition cannot be applied."""
        return array("q", islice(self._numbers(), self.limit))

    @cached_property
    def total(self) -> int:
        """The number of all rows."""
        known = self.results.source.count()
        return sum(1 for _ in self.results.source.rows()) if known is None else known

    def rows(self) -> Iterator[Row]:
        """The selected rows, numbered from 0; each with its image where the results have it."""
        rows = self.results.source.rows()
        before = -1
        for index, number in enumerate(self.numbers):
            row = next(islice(rows, number - before - 1, None))
            before = number
            yield replace(row, index=index)

    def _numbers(self) -> Iterator[int]:
        needed = () if self.condition is None else self.condition.columns
        rows = self.results.source.narrowed(needed).rows()
        if self.condition is None:
            yield from (number for number, _ in enumerate(rows))
            return
        types = self._types()
        number = 0
        while batch := list(islice(rows, ROWS_AT_ONCE)):
            for met in self.condition.met(_table(batch, types, self.results.source.is_typed)):
                if met:
                    yield number
                number += 1

    def _types(self) -> dict[str, pa.DataType]:
        """The columns that the condition names, with their types; texts of CSV that are all numbers are numbers.

        Raises UsageError where the values do not fit.
        """
        import pyarrow as pa

        assert self.condition is not None
        types = {}
        for name in self.condition.columns:
            types[name] = pa.string() if name == IMAGE else self.schema.field(name).type
        texts = [name for name, kind in types.items() if name != IMAGE and pa.types.is_string(kind)]
        if texts and self.results.source.is_typed:
            return {**types, **_long_among(texts, self.results.source.rows())}
        if texts:
            for name, digits in _numbers_among(texts, self.results.source.rows()).items():
                types[name] = pa.int64() if EXACT_IN_FLOATS < digits < TOO_LONG else pa.float64()
        return types


def _names_in(results: ResultRows) -> list[str]:
    return [IMAGE, *results.source.column_names()]


def _numbers_among(names: list[str], rows: Iterator[Row]) -> dict[str, int]:
    """The columns whose texts are all numbers, or empty, with the most digits; TOO_LONG if they are not all whole."""
    left = dict.fromkeys(names, 0)
    for row in rows:
        for name in list(left):
            text = row.columns.get(name)
            if text in (None, ""):
                continue
            if not _is_number(text):
                del left[name]
            else:
                left[name] = max(left[name], _digits(text))
        if not left:
            break
    return {name: digits for name, digits in left.items() if digits}


def _long_among(names: list[str], rows: Iterator[Row]) -> dict[str, pa.DataType]:
    """The columns, held as texts, of whole numbers that 64 bits may not hold, with types that do."""
    import pyarrow as pa

    longest = dict.fromkeys(names, 0)
    for row in rows:
        for name in list(longest):
            value = row.columns.get(name)
            if value is None:
                continue
            if type(value) is int:
                longest[name] = max(longest[name], len(str(abs(value))))
            else:
                del longest[name]
        if not longest:
            break
    exact = pa.decimal128(LONGEST_EXACT)
    return {name: exact if most <= LONGEST_EXACT else pa.float64() for name, most in longest.items() if most}


def _digits(text: Any) -> int:
    """The digits of a whole number; TOO_LONG for other numbers, and for what 64 bits may not hold."""
    match = WHOLE.fullmatch(str(text))
    return min(len(match[1]), TOO_LONG) if match else TOO_LONG


def _is_number(text: Any) -> bool:
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return not str(text).strip()[:1].isalpha()  # nan and inf are words


def _table(rows: list[Row], types: dict[str, pa.DataType], typed: bool) -> pa.Table:
    """The columns that a condition names; `typed` says whether an empty text is one, and not a missing value."""
    import pyarrow as pa

    arrays = []
    for name, kind in types.items():
        values = [row.name if name == IMAGE else row.columns.get(name) for row in rows]
        try:
            arrays.append(_array(values, kind, typed))
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            raise UsageError(
                f"column {name} has values that are not of its type, {kind}",
                "The results were changed; a condition cannot use this column.",
            ) from None
    return pa.Table.from_arrays(arrays, names=list(types))


def _array(values: list[Any], kind: pa.DataType, typed: bool) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_string(kind):
        missing = () if typed else ("",)
        return pa.array([None if value is None or value in missing else str(value) for value in values], pa.string())
    if pa.types.is_int64(kind):
        return pa.array([_whole(value) for value in values], kind)
    if pa.types.is_float16(kind):  # which DuckDB does not take
        return pa.array(values, kind).cast(pa.float32())
    if pa.types.is_float64(kind):
        return pa.array([None if value in (None, "") else float(value) for value in values], kind)
    if isinstance(kind, pa.FixedShapeTensorType):
        flat = [None if value is None else value.reshape(-1).astype("float32").tolist() for value in values]
        return pa.array(flat, pa.list_(pa.float32()))
    return pa.array(values, kind)


def _whole(value: Any) -> Any:
    """A whole number, which is a text in CSV."""
    if isinstance(value, str):
        return int(value) if value else None
    return value
