"""Conditions: what they select in every format, and that they can do nothing else."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2cli.commands.select.where import Condition
from blip2cli.errors import UsageError
from blip2cli.inputs import ColumnChoice, open_source
from tests.commands.select.rows import ROWS, ids, write
from tests.conftest import Typed

Run = Callable[..., Typed]


@pytest.mark.parametrize(
    ("where", "selected"),
    [
        ("caption = 'yes' and probability > 0.9", [10]),
        ("probability > 0.9", [7, 10]),
        ("probability >= 0.95", [7]),
        ("id between 8 and 9 or id = 10", [8, 9, 10]),
        ("error is null and caption like 'a%'", [7, 8]),
        ("error is not null", [9]),
        ("image ilike '%BLUE-CIRCLE%'", [7]),
        ("length(caption) < 5 -- short ones", [10]),
        ("lower(Caption) in ('yes', 'no')", [10]),
        ("case when id > 8 then true else false end and not id = 9", [10]),
        ("true", [7, 8, 9, 10]),
        ("null", []),
    ],
)
def test_rows_that_meet_a_condition_are_written_as_they_were(
    typed: Run, results: str, where: str, selected: list[int]
) -> None:
    ran = typed("select", results, "--where", where)
    assert (ran.code, ids(ran)) == (0, selected)
    assert re.fullmatch(rf"{len(selected)} of 4 rows selected, in \d+\.\d s\n", ran.err)
    if results != "r.csv":
        assert ran.rows == [row for row in ROWS if row["id"] in selected]


def test_lists_can_be_looked_into(typed: Run, tmp_path: Path) -> None:
    write(tmp_path / "r.jsonl", ROWS)
    assert ids(typed("select", "r.jsonl", "--where", "list_contains(tags, 'b')")) == [7, 10]
    assert ids(typed("select", "r.jsonl", "--where", "len(list_filter(tags, lambda x: x = 'a')) = 1")) == [7]


@pytest.mark.parametrize("name", ["r.jsonl", "r.parquet", "r.csv"])
def test_an_empty_text_is_missing_in_csv_alone(typed: Run, tmp_path: Path, name: str) -> None:
    rows = [{"image": "a.png", "id": 1, "t": ""}, {"image": "b.png", "id": 2, "t": None}]
    write(tmp_path / name, [*rows, {"image": "c.png", "id": 3, "t": "x"}])
    missing, empty = ([1, 2], []) if name == "r.csv" else ([2], [1])
    assert ids(typed("select", name, "--where", "t is null")) == missing
    assert ids(typed("select", name, "--where", "t = ''")) == empty


def test_whole_numbers_of_json_above_64_bits_are_numbers(typed: Run, tmp_path: Path) -> None:
    for long in (2**63, 2**64 + 1, 10**40):
        write(tmp_path / "r.jsonl", [{"image": f"{n}.png", "id": n, "n": long + n} for n in (1, 2)])
        assert ids(typed("select", "r.jsonl", "--where", "n > 5")) == [1, 2]
        if long < 10**38:
            assert ids(typed("select", "r.jsonl", "--where", f"n = {long + 2}")) == [2]


def test_numbers_in_csv_are_compared_exactly(typed: Run, tmp_path: Path) -> None:
    write(tmp_path / "r.csv", [{"image": f"{n}.png", "id": n, "p": 0.87 + n / 1000} for n in range(40, 20, -1)])
    assert ids(typed("select", "r.csv", "--where", "p > 0.9")) == list(range(40, 30, -1))
    write(tmp_path / "r.csv", [{"image": "a.png", "id": 1, "p": "0.95"}, {"image": "b.png", "id": 2, "p": "n/a"}])
    assert ids(typed("select", "r.csv", "--where", "try_cast(p as double) > 0.9")) == [1]
    refused = typed("select", "r.csv", "--where", "p::double > 0.9", "--out", "o.csv")
    assert refused.code == 2 and "try_cast" in refused.err and not Path("o.csv").exists()


def test_long_whole_numbers_in_csv_are_told_apart(typed: Run, tmp_path: Path) -> None:
    write(tmp_path / "r.csv", [{"image": "a.png", "id": 2**53 + n} for n in range(3)] + [{"image": "b.png", "id": ""}])
    assert ids(typed("select", "r.csv", "--where", f"id = {2**53 + 1}")) == [2**53 + 1]
    assert ids(typed("select", "r.csv", "--where", f"id > {2**53}")) == [2**53 + 1, 2**53 + 2]


def test_columns_of_types_that_duckdb_does_not_take(typed: Run, tmp_path: Path) -> None:
    halves = pa.array(np.arange(3, dtype=np.float16))
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), halves)
    pq.write_table(pa.table({"image": ["a", "b", "c"], "id": [1, 2, 3], "half": halves, "lists": lists}), "r.parquet")
    assert ids(typed("select", "r.parquet", "--where", "half > 0.5")) == [2, 3]
    refused = typed("select", "r.parquet", "--where", "lists[1] > 0.5")
    assert refused.code == 2 and "blip2: --where 'lists[1] > 0.5': " in refused.err


ATTACKS = [
    "1=1; copy results to 'stolen'",
    "1=1); copy results to 'stolen'; select (1",
    "1=1) AS BOOLEAN) FROM results; ATTACH 'stolen'; SELECT CAST((1",
    "1=1) AS BOOLEAN) FROM results UNION SELECT CAST((1=1",
    "1=1) AS BOOLEAN), CAST((1=1",
    "1=1) AS BOOLEAN) FROM results WHERE (1=1",
    "exists(select * from read_csv('/etc/passwd'))",
    "exists(from read_text('/etc/passwd'))",
    "image in (select content from read_blob('/etc/passwd'))",
    "(select count(*) from '/etc/passwd') > 0",
    "(select count(*) from glob('/etc/*')) > 0",
    "exists(select * from results)",
    "exists(select * from duckdb_secrets())",
    "read_text('/etc/passwd') is not null",
    "getenv('HOME') is not null",
    "current_date is not null",
    "CURRENT_USER is not null",
    "localtimestamp is not null",
    "id > 0 and session_user = 'x'",
    "current_localtimestamp() is not null",
    "current_setting('home_directory') is not null",
    "getvariable('x') is null",
    "write_log('x') is null",
    "nextval('x') > 0",
    "sleep_ms(1) is null",
    "random() > 0.5",
    "setseed(0.5) is null",
    "error('x') is null",
    "pg_sleep(1) is null",
    "query('select 1') is null",
    "ATTACH 'stolen'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "PRAGMA database_list",
    "SET threads = 8",
    "COPY results TO 'stolen'",
    "EXPORT DATABASE 'stolen'",
    "CREATE TABLE t AS SELECT 1",
    "DROP VIEW results",
    "row_number() over () = 1",
    "count(*) > 0",
    "columns(*) is null",
    "unnest([1, 2]) = 1",
    "? = 1",
    "$x = 1",
    "#1 = 1",
    "DEFAULT",
    "repeat(image, 100000000000) is null",
    "1=1 limit 1",
    "1=1 /*",
    "'",
    "",
    "--",
    ")(",
    "other.image = 'x'",
    "nothing = 1",
    "image = " + "'a' || " * 500 + "'b'",
    "not " * 500 + "true",
    "length(" * 200 + "image" + ")" * 200,
    "lpad(image, 100000, 'x') is null",
    "format('{:>100000}', image) is null",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_condition_can_do_nothing_but_compare_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as refused:
        Condition(attack, ["image", "id"]).met(pa.table({"image": ["a", "b"], "id": [1, 2]}))
    assert refused.value.hint
    assert not list(tmp_path.iterdir())


def test_duckdb_itself_may_not_reach_outside(tmp_path: Path) -> None:
    import duckdb

    connection = Condition("true", ["image"])._connection
    for statement in (
        f"COPY (SELECT 1) TO '{tmp_path}/x'",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM ATTACKS",
        f"ATTACH '{tmp_path}/x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET threads = 8",
    ):
        with pytest.raises(duckdb.Error):
            connection.execute(statement)
    assert not list(tmp_path.iterdir())


def test_names_in_other_capitals_are_told_apart() -> None:
    names = ["image", "ID", "id"]
    table = pa.table({"image": ["a", "b"], "ID": [1, 2], "id": [3, 4]})
    for text, met in (("id = 3", [True, False]), ("ID = 2", [False, True]), ("IMAGE = 'a'", [True, False])):
        condition = Condition(text, names)
        assert condition.met(table.select(condition.columns)) == met
    for text in ("id = 3 and ID = 1", "Id = 3"):
        with pytest.raises(UsageError, match="several columns are called id"):
            Condition(text, names)


@pytest.mark.parametrize("text", ['image = "yes"', "image = yes", "image=yes"])
def test_a_text_without_single_quotation_marks_is_noticed(text: str) -> None:
    with pytest.raises(UsageError, match='"yes" is not there; texts are in single quotation marks'):
        Condition(text, ["image"]).met(pa.table({"image": ["yes"]}))


def test_only_the_columns_of_a_condition_are_read_to_apply_it(results: str, tmp_path: Path) -> None:
    source = open_source([str(tmp_path / results)], ColumnChoice())
    narrow = source.narrowed(["probability"])
    for row, whole in zip(narrow.rows(), source.rows(), strict=True):
        assert (row.name, row.columns["probability"]) == (whole.name, whole.columns["probability"])
        assert results != "r.parquet" or list(row.columns) == ["probability"]
    assert next(source.narrowed(["id", "tags"]).rows()).columns.keys() >= {"id", "tags"}
    assert next(source.rows()).columns.keys() == ROWS[0].keys() - {"image"}, "the source itself is as it was"


def test_without_duckdb_the_package_is_named(typed: Run, results: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert "pip install 'blip2cli[select]'" in typed("select", results, "--where", "true").err
    assert ids(typed("select", results, "--limit", 1)) == [7]
