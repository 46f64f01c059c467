"""Sources of rows: what each of them declares, and several put together as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from blip2cli.errors import UsageError
from blip2cli.records import Row

if TYPE_CHECKING:
    import pyarrow as pa


class Source(ABC):
    """Yields rows in a fixed order, the same in every run.

    A kind of source has to say `rows`; the other members have defaults. No file stays open between calls: `rows` opens
    what it reads, and closes it when its iterator ends or is closed.
    """

    @abstractmethod
    def rows(self, start: int = 0) -> Iterator[Row]:
        """The rows from the start-th on; their `index` is left at 0 for `Sources` to set."""

    def count(self) -> int | None:
        """How many rows there are; None where only reading tells."""
        return None

    def column_names(self) -> list[str]:
        """Names of the columns that are carried through; cheaper than `schema`."""
        return []

    def schema(self) -> pa.Schema:
        """Names and types of the columns that are carried through."""
        import pyarrow as pa

        return pa.schema([])

    def measured(self, field: pa.Field) -> pa.Field:
        """A field of the schema, marked (`fields.FITS`) if its values, all of which may be read, fit a wider type."""
        return field

    def records(self) -> Iterator[Mapping[str, Any] | None]:
        """The rows by the names of their columns, the image's name as `image`; None for a row that cannot be read."""
        for row in self.rows():
            broken = row.error is not None and not row.columns
            yield None if broken else {**row.columns, "image": row.name}

    @property
    def files(self) -> Sequence[str]:
        """The tables, archives or folder that it reads; images given by name are left out, as there may be millions."""
        return ()

    @property
    def holds_texts(self) -> bool:
        """Whether its rows can hold a text, such as a question."""
        return False

    @property
    def may_wait(self) -> bool:
        """Whether its rows are those of another program, which may take its time."""
        return False

    @property
    def is_typed(self) -> bool:
        """Whether the values of its columns have types; otherwise all are texts."""
        return True

    def split(self) -> Sequence[Source]:
        """The same rows as sources that can be read side by side."""
        return (self,)

    def narrowed(self, names: Collection[str]) -> Source:
        """The same rows with at least these of their carried columns, where others need
        not be read."""
        return self

    def unread(self) -> Counter[str]:
        """How many files were not read, by suffix, when the source was last counted, or read to its end."""
        return Counter()


@dataclass(frozen=True)
class CountedSource(Source):
    """A source whose rows have been counted by reading them."""

    source: Source
    number: int

    def rows(self, start: int = 0) -> Iterator[Row]:
        return self.source.rows(start)

    def count(self) -> int | None:
        return self.number

    def column_names(self) -> list[str]:
        return self.source.column_names()

    def schema(self) -> pa.Schema:
        return self.source.schema()

    def measured(self, field: pa.Field) -> pa.Field:
        return self.source.measured(field)

    @property
    def files(self) -> Sequence[str]:
        return self.source.files

    @property
    def holds_texts(self) -> bool:
        return self.source.holds_texts

    @property
    def is_typed(self) -> bool:
        return self.source.is_typed

    @property
    def may_wait(self) -> bool:
        return self.source.may_wait

    def unread(self) -> Counter[str]:
        return self.source.unread()


@dataclass(frozen=True)
class Sources:
    """Several sources as one, in the order in which they were given.

    `share` (i, n), i counted from 1, leaves only the i-th of n shares of the rows: consecutive rows where their number
    is known, so that the shares one after the other are the input; else every n-th row.
    """

    parts: tuple[Source, ...]
    limit: int | None = None
    share: tuple[int, int] | None = None

    def rows(self, start: int = 0, before: str | None = None) -> Iterator[Row]:
        """All rows from the start-th on, numbered from 0 throughout.

        Raises UsageError where the row before the start-th does not have the name `before`: the input has changed.
        """
        first, stop, step = self._share()
        done = max(start - 1, 0)
        skipped = first + done * step
        last = None if stop is None else max(stop - skipped, 0)
        numbered = enumerate(islice(self._rows(skipped), 0, last, step), done)
        if start:
            _, previous = next(numbered, (0, None))
            _check_unchanged("missing" if previous is None else previous.name, before, start)
        remaining = None if self.limit is None else max(self.limit - start, 0)
        return (replace(row, index=index) for index, row in islice(numbered, remaining))

    def stretch(self, first: int, stop: int) -> Iterator[Row]:
        """The rows from the first-th to the one before the stop-th, numbered as `rows` numbers them."""
        begin, _, step = self._share()
        rows = islice(self._rows(begin + first * step), 0, None, step)
        return (replace(row, index=index) for index, row in zip(range(first, stop), rows, strict=False))

    def split(self) -> Sources:
        """The same rows, from more parts where one of them stands for several files."""
        return replace(self, parts=tuple(piece for part in self.parts for piece in part.split()))

    def with_counts(self, counts: Iterable[int]) -> Sources:
        """The same rows, given the numbers of those parts that do not know theirs, in their order."""
        number = iter(counts)
        parts = (part if part.count() is not None else CountedSource(part, next(number)) for part in self.parts)
        return replace(self, parts=tuple(parts))

    def count(self) -> int | None:
        """How many rows there are, after limit and share; None where only reading tells."""
        if self.share is None:
            total = self._count()
        else:
            first, stop, _ = self._share()
            total = None if stop is None else stop - first
        if total is None or self.limit is None:
            return total
        return min(total, self.limit)

    @property
    def files(self) -> list[str]:
        """The tables, archives and folders that the parts read."""
        return [name for part in self.parts for name in part.files]

    @property
    def holds_texts(self) -> bool:
        """Whether all rows can hold a text."""
        return all(part.holds_texts for part in self.parts)

    def narrowed(self, names: Collection[str]) -> Sources:
        """The same rows with at least these of their carried columns."""
        return replace(self, parts=tuple(part.narrowed(names) for part in self.parts))

    @property
    def may_wait(self) -> bool:
        """Whether rows of a part are those of another program, which may take its time."""
        return any(part.may_wait for part in self.parts)

    @property
    def is_typed(self) -> bool:
        """Whether the values of all parts have types."""
        return all(part.is_typed for part in self.parts)

    def unread(self) -> Counter[str]:
        """Files that are not read, by suffix, as far as the parts have been counted or read."""
        total: Counter[str] = Counter()
        for part in self.parts:
            total += part.unread()
        return total

    def column_names(self) -> list[str]:
        """Names of the carried columns of all parts."""
        return list(dict.fromkeys(name for part in self.parts for name in part.column_names()))

    def schema(self) -> pa.Schema:
        """The carried columns of all parts; a column that no type holds exactly is a string of JSON.

        Where it depends on the values of a column whether a type holds them, they are read.
        """
        import pyarrow as pa

        from blip2cli.inputs.fields import doubtful, merged_fields

        schemas = [part.schema() for part in self.parts]
        names = doubtful(schemas)
        if names:
            schemas = [_measured(part, schema, names) for part, schema in zip(self.parts, schemas, strict=True)]
        return pa.schema(list(merged_fields(schemas).values()))

    def _rows(self, start: int) -> Iterator[Row]:
        """The rows from the start-th on; parts before it are not read where their number is known."""
        for part in self.parts:
            count = part.count() if start else None
            if start and count is None:
                rows = part.rows(0)
                start -= sum(1 for _ in islice(rows, start))
                yield from rows
            elif count is not None and count <= start:
                start -= count
            else:
                yield from part.rows(start)
                start = 0

    def _count(self) -> int | None:
        """How many rows the parts have; None where only reading tells."""
        total = 0
        unknown = False
        for part in self.parts:
            count = part.count()
            unknown = unknown or count is None
            total += count or 0
        return None if unknown else total

    def _share(self) -> tuple[int, int | None, int]:
        """Which rows are read: the number of the first, that after the last where it is known, and the step."""
        if self.share is None:
            return 0, None, 1
        number, of = self.share
        total = self._count()
        if total is None:
            return number - 1, None, of
        return total * (number - 1) // of, total * number // of, 1


def _measured(part: Source, schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    """The schema of a part, with the fields of these names marked as their values are."""
    import pyarrow as pa

    return pa.schema([part.measured(field) if field.name in names else field for field in schema])


def _check_unchanged(name: str, before: str | None, number: int) -> None:
    if name != before:
        raise UsageError(
            f"the input has changed: row {number} was {before}, is {name}",
            "Use --update to add the rows that the output does not have yet, or --overwrite to start again.",
        )
