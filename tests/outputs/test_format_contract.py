"""What every format of the registry promises; a new one is tested here without being told.

The outputs are driven as a run drives them, without a model. That other columns are refused, and outputs or journals
that were edited, is tested over the registry too, with the command line: in test_not_damaged.py.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest

from blip2cli.errors import UsageError
from blip2cli.outputs import FORMATS, open_output
from blip2cli.outputs.commits import Commit
from blip2cli.outputs.formats import Format, Output
from blip2cli.outputs.journal import Journal, read_journal
from blip2cli.outputs.layout import Layout
from blip2cli.outputs.target import Target, make_folder, target_of
from blip2cli.records import Column, ImageRef, Result, Row, RowError
from blip2cli.settings import FormatName, OutputSettings
from tests.outputs.kept import files
from tests.outputs.registry import CASES, IMAGES, out_of

ROWS = 5
FAILED = 2
"""The row that has an error."""

COLUMNS = {
    "caption": Column("caption", "string"),
    "vqa": Column("answer", "string"),
    "embed": Column("features", "tensor", (4,), "fp32"),
}
"""Task → its column."""

TABLES = (".parquet", ".arrow")
"""Suffixes of files whose bytes depend on where they were committed; their rows do not."""

COMPRESSED = ("jsonl.gz", "jsonl.zst", "csv.gz", "csv.zst")
KILLED = [*CASES, "csv-shards", "arrow-shards", *COMPRESSED]


class Killed(BaseException):
    """What ends a run as SIGKILL does: nothing catches it on its way."""


def layout_of(form: Format, *more: Column) -> Layout:
    column = COLUMNS[form.tasks[0] if form.tasks else "caption"]
    schema = pa.schema([("question_id", pa.int64()), ("note", pa.string())])
    return Layout({name: name for name in schema.names}, (column, *more), lambda: schema, {"task": "test"})


def results_of(layout: Layout, folder: Path) -> list[Result]:
    tensor = layout.columns[0].kind == "tensor"
    results = []
    for number in range(ROWS):
        image = folder / f"{number}.png"
        shutil.copy(IMAGES[number % len(IMAGES)], image)
        row = Row(number, str(image), ImageRef(str(image)), {"question_id": number, "note": f"n, {number}"})
        value = np.full(4, number, np.float32) if tensor else f'text "{number}"'
        failed = number == FAILED
        results.append(
            Result(row, (None if failed else value,), RowError("missing", "no such file") if failed else None)
        )
    return results


class Run:
    """Runs that write one output, each going on where the last was stopped."""

    def __init__(self, case: str, out: Path) -> None:
        name = case.partition("-")[0].partition(".")[0]
        self.form = FORMATS[name]
        self.settings = OutputSettings(
            out=out,
            format=name,  # type: ignore[arg-type]  # a name of FORMATS
            shard_size=2,
            resume=True,
            existing="append" if self.form.adds_to_existing else None,
        )
        self.layout = layout_of(self.form)

    @property
    def target(self) -> Target:
        return target_of(self.settings, FORMATS)

    def open(self, layout: Layout | None = None) -> Output:
        if self.form.index:
            make_folder(self.target.path.parent)
        return open_output(self.target, self.settings, layout or self.layout, {"task": "test"})

    def write(self, results: Sequence[Result]) -> None:
        output = self.open()
        for result in results[output.committed.rows :]:
            if output.wants(result.row):
                output.write([result])
                output.commit()
        output.finish()

    def rows(self) -> list[dict[str, Any]]:
        return list(self.open().records())

    def contents(self) -> tuple[list[str], dict[str, bytes], list[str]]:
        """The names of all files, the bytes of those that are not tables, and the rows."""
        folder = self.target.path if self.form.index else self.target.path.parent
        data = {os.path.relpath(name, folder): data for name, data in files(folder).items()}
        data = {name: data for name, data in data.items() if not name.startswith(".")}
        texts = {name: data for name, data in data.items() if not name.endswith(TABLES)}
        return sorted(data), texts, list(map(str, self.rows()))


def path_of(case: str, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder / (f"o.{case}" if case in COMPRESSED else out_of(case))


@pytest.fixture
def start(tmp_path: Path) -> Callable[[str, str], tuple[Run, list[Result]]]:
    """A run that has not begun, and the results that it is to write."""

    def make(case: str, folder: str) -> tuple[Run, list[Result]]:
        run = Run(case, path_of(case, tmp_path / folder))
        images = tmp_path / "images"
        images.mkdir(exist_ok=True)
        return run, results_of(run.layout, images)

    return make


@pytest.mark.parametrize("case", CASES)
def test_rows_are_read_back_as_they_were_written(
    start: Callable[[str, str], tuple[Run, list[Result]]], case: str
) -> None:
    run, results = start(case, "o")
    run.write(results)
    if run.form.no_retry:
        assert files(run.target.path), "what cannot be read back is there all the same"
        return
    rows = run.rows()
    assert [row["error"] is not None for row in rows] == [number == FAILED for number in range(ROWS)]
    (column,) = run.layout.columns
    for row, result in zip(rows, results, strict=True):
        if result.error is None:
            assert np.array_equal(row[column.name], result.values[0])


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, bool], None]]:
    """Have the run killed at a commit, before it is on disk or behind it."""
    add = Journal.add

    def install(at: int, behind: bool) -> None:
        commits = count(1)

        def add_and_die(self: Journal, commit: Commit) -> None:
            last = next(commits) == at
            if behind or not last:
                add(self, commit)
            if last:
                raise Killed

        monkeypatch.setattr(Journal, "add", add_and_die)

    yield install


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("case", KILLED)
def test_a_run_killed_at_any_commit_and_resumed_ends_with_the_same_output(
    start: Callable[[str, str], tuple[Run, list[Result]]],
    dying: Callable[[int, bool], None],
    case: str,
    behind: bool,
) -> None:
    whole, results = start(case, "whole")
    whole.write(results)
    for at in count(1):
        run, _ = start(case, f"killed{at}")
        dying(at, behind)
        try:
            run.write(results)
        except Killed:
            tear(run.target)
            dying(0, behind)
            run.write(results)
            assert run.contents() == whole.contents(), f"killed at commit {at}"
            continue
        assert at > 1, "it commits"
        return


def tear(target: Target) -> None:
    """Break off in the middle what was written behind the last commit, as a machine does that loses its power."""
    record = read_journal(target.journal_path)
    if record is None or record.commit.finished or "size" not in record.commit.state:
        return  # there is no file that grows
    size, committed = target.path.stat().st_size, record.commit.state["size"]
    if target.path.is_file() and size > committed:
        os.truncate(target.path, (size + committed) // 2)


@pytest.mark.parametrize("case", CASES)
def test_other_columns_of_the_task_are_refused_and_nothing_is_changed(
    start: Callable[[str, str], tuple[Run, list[Result]]], case: str
) -> None:
    run, results = start(case, "o")
    run.write(results)
    before = files(run.target.path.parent)
    with pytest.raises(UsageError, match="other settings: column score is new"):
        run.open(layout_of(run.form, Column("score", "number")))
    assert files(run.target.path.parent) == before


def test_a_format_that_is_added_is_picked_up_by_its_suffix_and_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = Format("blip2cli.outputs.jsonl:JsonlOutput", suffixes=(".rows",))
    monkeypatch.setitem(FORMATS, "rows", added)
    by_suffix = target_of(OutputSettings(out=tmp_path / "o.rows"), FORMATS)
    assert (by_suffix.name, by_suffix.format, by_suffix.shards) == ("rows", added, False)
    run = Run("rows", tmp_path / "shards")
    (tmp_path / "images").mkdir()
    run.write(results_of(run.layout, tmp_path / "images"))
    assert [path.name for path in sorted((tmp_path / "shards").iterdir())] == [f"part-0000{n}.rows" for n in range(3)]
    assert len(run.rows()) == ROWS


def test_the_option_offers_the_formats_of_the_registry() -> None:
    assert get_args(FormatName) == tuple(FORMATS)
