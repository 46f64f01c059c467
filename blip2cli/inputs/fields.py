"""Types of carried columns: the type that holds the values of two types exactly, if there
is one.

Integers up to 2**53 fit into floats, and times between the years 1677 and 2262 into
nanoseconds. If a source knows that all values of a field do, it marks the field, in its
metadata (FITS).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

FITS = b"blip2.fits"
"""The key of the mark; its value says what the field's values fit into."""

FLOAT64, NANOSECONDS = b"float64", b"ns"

EXACT = 1 << 53
"""Integers from minus this to this are also floats of 64 bits."""

LAST = (1 << 63) - 1
"""The most nanoseconds since 1970 that fit into 64 bits."""

IN_A = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
"""Nanoseconds in a unit of time."""

DIGITS = {8: 3, 16: 5, 32: 10, 64: 20}
"""Bits of an integer → decimal digits."""

MOST_FIELDS = 1000
"""The most fields of a struct; objects with more keys are maps, not records."""

MOST_LEVELS = 32
"""The most levels of nested lists and structs; Arrow's files have 64 at most, Parquet's
half as many lists."""


def merge_fields(one: pa.Field, other: pa.Field) -> pa.Field:
    """The field that holds the values of both exactly; a string, for JSON, if no type
    does."""
    import pyarrow as pa

    both = _merged(one, other)
    return pa.field(one.name, pa.string()) if both is None else both


def marked(field: pa.Field, fits: bytes | None) -> pa.Field:
    """The field with a mark that says what all its values fit into; without a mark for
    None."""
    return field.with_metadata(None if fits is None else {FITS: fits})


def merged_fields(schemas: Iterable[pa.Schema]) -> dict[str, pa.Field]:
    """The fields of several schemas by name, each with a type for the values of all of
    them."""
    fields: dict[str, pa.Field] = {}
    for schema in schemas:
        for field in schema:
            known = fields.get(field.name)
            fields[field.name] = field if known is None else merge_fields(known, field)
    return fields


def doubtful(schemas: Sequence[pa.Schema]) -> list[str]:
    """Names of the fields whose type depends on whether all their values fit, which is
    not known yet."""
    as_known = merged_fields(schemas)
    at_best = merged_fields([_assumed(schema) for schema in schemas])
    return [name for name, field in as_known.items() if field.type != at_best[name].type]


def field_of(name: str, values: pa.Array) -> pa.Field:
    """The field of an array, marked by its values."""
    import pyarrow as pa

    kind = values.type
    if pa.types.is_integer(kind):
        return marked(pa.field(name, kind), FLOAT64 if _within(values, EXACT) else None)
    if pa.types.is_timestamp(kind):
        return marked(pa.field(name, kind), NANOSECONDS if _within(values, LAST // IN_A[kind.unit]) else None)
    if pa.types.is_list(kind):
        return pa.field(name, pa.list_(field_of(kind.value_field.name, values.flatten())))
    if pa.types.is_struct(kind):
        inner = zip(kind, values.flatten(), strict=True)
        return pa.field(name, pa.struct([field_of(field.name, array) for field, array in inner]))
    return pa.field(name, kind)


def _within(values: pa.Array, bound: int) -> bool:
    """Whether all numbers, or the numbers of all times, are between minus the bound and
    the bound."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = values.view(pa.int64()) if pa.types.is_timestamp(values.type) else values
    bounds = pc.min_max(numbers).as_py()
    return all(number is None or abs(number) <= bound for number in bounds.values())


def _assumed(schema: pa.Schema) -> pa.Schema:
    """The schema with all marks that its fields may have."""
    import pyarrow as pa

    return pa.schema([field_at_best(field) for field in schema])


def field_at_best(field: pa.Field) -> pa.Field:
    """The field with all marks that it may have."""
    import pyarrow as pa

    kind = field.type
    if pa.types.is_integer(kind):
        return marked(field, FLOAT64)
    if pa.types.is_timestamp(kind):
        return marked(field, NANOSECONDS)
    if pa.types.is_list(kind):
        return pa.field(field.name, pa.list_(field_at_best(kind.value_field)))
    if pa.types.is_struct(kind):
        return pa.field(field.name, pa.struct([field_at_best(inner) for inner in kind]))
    return field


def _merged(one: pa.Field, other: pa.Field) -> pa.Field | None:
    """The field that holds the values of both; None if there is none."""
    import pyarrow as pa

    if pa.types.is_null(one.type) or pa.types.is_null(other.type):
        known = other if pa.types.is_null(one.type) else one
        return known.with_name(one.name).with_nullable(True)
    first, second = _decoded(one.type), _decoded(other.type)
    if one.type.equals(other.type) and not pa.types.is_nested(one.type):
        kind: pa.DataType | None = one.type
    elif pa.types.is_nested(first) and pa.types.is_nested(second):
        kind = _merged_nested(first, second)
    else:
        kind = _merged_plain(first, _mark(one), second, _mark(other))
    if kind is None:
        return None
    return marked(pa.field(one.name, kind), _mark(one) if _mark(one) == _mark(other) else None)


def _mark(field: pa.Field) -> bytes | None:
    mark: bytes | None = (field.metadata or {}).get(FITS)
    return mark


def _decoded(kind: pa.DataType) -> pa.DataType:
    """The type of the values, without dictionary or run-length encoding."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind) or _name(kind) == "run_end_encoded":
        return kind.value_type
    return kind


def _merged_plain(
    one: pa.DataType, one_fits: bytes | None, other: pa.DataType, other_fits: bytes | None
) -> pa.DataType | None:
    """The type that holds the values of two types that are not nested."""
    import pyarrow as pa

    if one.equals(other):
        return one
    kinds = (one, other)
    if all(map(_is_text, kinds)):
        return pa.large_string() if pa.large_string() in kinds else pa.string()
    if all(map(_is_binary, kinds)):
        return pa.large_binary() if pa.large_binary() in kinds else pa.binary()
    if all(map(pa.types.is_integer, kinds)):
        return _integer(one, other)
    if all(map(pa.types.is_floating, kinds)):
        return max(kinds, key=lambda kind: kind.bit_width)
    if all(map(pa.types.is_date, kinds)):
        return pa.date64()
    if all(pa.types.is_decimal(kind) or pa.types.is_integer(kind) for kind in kinds):
        return _decimal(one, other)
    if all(pa.types.is_floating(kind) or pa.types.is_integer(kind) for kind in kinds):
        return _number(*((one, one_fits, other) if pa.types.is_integer(one) else (other, other_fits, one)))
    if all(map(pa.types.is_timestamp, kinds)):
        return _timestamp(one, one_fits, other, other_fits)
    if all(map(pa.types.is_time, kinds)):
        unit = _finer(one.unit, other.unit)
        return pa.time64(unit) if unit in ("us", "ns") else pa.time32(unit)
    if all(map(pa.types.is_duration, kinds)) and "ns" not in (one.unit, other.unit):
        return pa.duration(_finer(one.unit, other.unit))
    return None


def _name(kind: pa.DataType) -> str:
    """The name of a type without what it is made of; some have no test in the older
    versions of pyarrow."""
    return re.split(r"[<(\[]", str(kind))[0]


def _is_text(kind: pa.DataType) -> bool:
    return _name(kind) in ("string", "large_string", "string_view")


def _is_binary(kind: pa.DataType) -> bool:
    return _name(kind) in ("binary", "large_binary", "fixed_size_binary", "binary_view")


def _integer(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The smallest integer type for the values of two; None for unsigned 64 bits with
    signed ones."""
    import pyarrow as pa

    kinds = (one, other)
    signed = [pa.types.is_signed_integer(kind) for kind in kinds]
    if signed[0] == signed[1]:
        return max(one, other, key=lambda kind: kind.bit_width)
    widths = [
        kind.bit_width if is_signed else 2 * kind.bit_width for kind, is_signed in zip(kinds, signed, strict=True)
    ]
    bits = max(widths)
    return {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}.get(bits)


def _number(integer: pa.DataType, fits: bytes | None, floating: pa.DataType) -> pa.DataType | None:
    """The float type that also holds integers exactly."""
    import pyarrow as pa

    if integer.bit_width <= 16 and floating.bit_width >= 32:
        return floating
    return pa.float64() if integer.bit_width <= 32 or fits == FLOAT64 else None


def _decimal(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The decimal type with the digits of both on either side of the point."""
    import pyarrow as pa

    before_point, after_point = [], []
    for kind in (one, other):
        digits, scale = (kind.precision, kind.scale) if pa.types.is_decimal(kind) else (DIGITS[kind.bit_width], 0)
        before_point.append(digits - scale)
        after_point.append(scale)
    scale = max(after_point)
    precision = max(before_point) + scale
    if precision <= 38:
        return pa.decimal128(precision, scale)
    return pa.decimal256(precision, scale) if precision <= 76 else None


def _timestamp(
    one: pa.DataType, one_fits: bytes | None, other: pa.DataType, other_fits: bytes | None
) -> pa.DataType | None:
    """The type of the finer unit, if the values of the coarser one fit; None for two time
    zones."""
    import pyarrow as pa

    if one.tz != other.tz:
        return None
    unit = _finer(one.unit, other.unit)
    coarser = other_fits if one.unit == unit else one_fits
    return None if unit == "ns" and coarser != NANOSECONDS else pa.timestamp(unit, one.tz)


def _finer(one: str, other: str) -> str:
    return max(one, other, key=("s", "ms", "us", "ns").index)


def _merged_nested(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type of lists, or of objects with the keys of both; None if no type holds their
    contents."""
    import pyarrow as pa

    kinds = (one, other)
    if all(map(pa.types.is_struct, kinds)):
        return _merged_struct(one, other)
    if one.equals(other) and not pa.types.is_list(one):
        return one
    if all(map(_is_listing, kinds)):
        inner = _merged(one.value_field, other.value_field)
        if inner is None:
            return None
        if all(map(pa.types.is_fixed_size_list, kinds)) and one.list_size == other.list_size:
            return pa.list_(inner, one.list_size)
        return pa.large_list(inner) if any(map(pa.types.is_large_list, kinds)) else pa.list_(inner)
    return None


def _is_listing(kind: pa.DataType) -> bool:
    return _name(kind) in ("list", "large_list", "fixed_size_list", "list_view", "large_list_view")


def _merged_struct(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    import pyarrow as pa

    fields = {field.name: field for field in one}
    added = {field.name: field for field in other}
    if len(fields) < one.num_fields or len(added) < other.num_fields:
        return one if one.equals(other) else None  # keys that occur twice
    for name, field in added.items():
        merged = _merged(fields[name], field) if name in fields else field.with_nullable(True)
        if merged is None:
            return None
        fields[name] = merged
    return pa.struct(list(fields.values())) if len(fields) <= MOST_FIELDS else None
