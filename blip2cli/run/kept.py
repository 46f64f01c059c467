"""Rows of an earlier output that a retry copies instead of computing them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from blip2cli.errors import UsageError
from blip2cli.host.signals import Stop
from blip2cli.outputs.formats import Output
from blip2cli.outputs.layout import Layout
from blip2cli.records import Result, Row

if TYPE_CHECKING:
    from blip2cli.run.pipeline import Pipeline, PipelineStats


class KeptRows:
    """The good rows of an old output, which get the same places in the new one.

    Args:
        old: the old output.
        layout: its columns.
        done: input rows that the retry itself has committed.
    """

    def __init__(self, old: Output, layout: Layout, done: int) -> None:
        self.old, self.layout, self.done = old, layout, done
        errors = [record["error"] is not None for record in old.records()]
        self.rows_each = len(errors) // old.committed.rows
        self.retried = frozenset(at // self.rows_each for at, error in enumerate(errors) if error)

    def around(self, pipeline: Pipeline) -> Pipeline:
        """A pipeline whose results have the old output's values in the rows that are
        kept."""
        return _KeepingPipeline(self, pipeline)

    def restored(self, results: Iterator[Result]) -> Iterator[Result]:
        """The results; kept rows have their values in the old output."""
        records: Any = self.old.records()
        with closing(records):
            before = islice(records, self.done * self.rows_each, None)
            for result in results:
                record = next(before)
                name = record.get("image", result.row.name)  # files of results have no names
                if name != result.row.name:
                    raise _changed(name, result.row)
                if not result.row.kept:
                    yield result
                    continue
                values = tuple(record[column.name] for column in self.layout.columns)
                yield Result(replace(result.row, kept=False), values, last=result.last)


@dataclass(frozen=True)
class _KeepingPipeline:
    kept: KeptRows
    pipeline: Pipeline

    def results(self, rows: Iterator[Row], stop: Stop) -> Iterator[Result]:
        return self.kept.restored(self.pipeline.results(rows, stop))

    def stats(self) -> PipelineStats:
        return self.pipeline.stats()

    def close(self) -> None:
        self.pipeline.close()


def _changed(name: str, row: Row) -> UsageError:
    return UsageError(
        f"the input has changed: row {row.index + 1} was {name}, is {row.name}",
        "Use --update --retry-errors, which finds rows by their names.",
    )
