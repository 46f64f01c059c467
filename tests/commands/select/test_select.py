"""blip2 select: rows that meet a condition, in any format; their images in a folder."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2cli.commands.select.where import Condition
from blip2cli.errors import UsageError
from blip2cli.inputs import ColumnChoice, open_source
from blip2cli.outputs import FORMATS
from blip2cli.outputs.stdout import TableStream
from tests.conftest import Typed

Run = Callable[..., Typed]
EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
IMAGES = sorted(path.name for path in EXAMPLES.glob("*.png"))
ROWS = [
    {"image": IMAGES[0], "id": 7, "caption": "a blue circle", "probability": 0.96, "tags": ["a", "b"], "error": None},
    {"image": IMAGES[1], "id": 8, "caption": "a, \"b\"", "probability": 0.5, "tags": [], "error": None},
    {"image": "gone.png", "id": 9, "caption": None, "probability": None, "tags": None, "error": "missing: no file"},
    {"image": IMAGES[2], "id": 10, "caption": "yes", "probability": 0.91, "tags": ["b"], "error": None},
]  # fmt: skip


@pytest.fixture(params=["r.jsonl", "r.csv", "r.parquet"])
def results(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    for name in IMAGES:
        shutil.copy(EXAMPLES / name, tmp_path)
    write(tmp_path / request.param, ROWS)
    return str(request.param)


def write(path: Path, rows: list[dict]) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return
    lines = [json.dumps(row) for row in rows]
    if path.suffix == ".csv":
        table = [list(rows[0]), *([json.dumps(v) if isinstance(v, list) else v for v in row.values()] for row in rows)]
        cells = [['"' + str("" if cell is None else cell).replace('"', '""') + '"' for cell in line] for line in table]
        lines = [",".join(line) for line in cells]
    path.write_text("\n".join(lines) + "\n")


def ids(ran: Typed) -> list[int]:
    return [int(row["id"]) for row in ran.rows]


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


def test_results_in_the_folder_for_images_are_answered_with_its_option(typed: Run, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    write(tmp_path / "d" / "r.jsonl", [{"image": "a.png"}])
    refused = typed("select", "d/r.jsonl", "--images-to", "d")
    assert refused.code == 2 and refused.err.endswith("Choose another --images-to.\n")


def test_only_the_columns_of_a_condition_are_read_to_apply_it(results: str, tmp_path: Path) -> None:
    source = open_source([str(tmp_path / results)], ColumnChoice())
    narrow = source.narrowed(["probability"])
    for row, whole in zip(narrow.rows(), source.rows(), strict=True):
        assert (row.name, row.columns["probability"]) == (whole.name, whole.columns["probability"])
        assert results != "r.parquet" or list(row.columns) == ["probability"]
    assert next(source.narrowed(["id", "tags"]).rows()).columns.keys() >= {"id", "tags"}
    assert next(source.rows()).columns.keys() == ROWS[0].keys() - {"image"}, "the source itself is as it was"


@pytest.mark.parametrize("name", ["o.jsonl", "o.csv", "o.parquet", "o.arrow", "shards"])
def test_rows_go_to_every_format_of_rows(typed: Run, results: str, name: str) -> None:
    words = ["select", results, "--where", "id > 8", "--out", name]
    assert typed(*words).code == 0
    assert ids(typed("select", name)) == [9, 10]
    again = typed(*words)
    assert again.code == 2 and again.err.startswith(f"blip2: {name} exists")
    assert typed(*words, "--overwrite").err.startswith(f"2 of 4 rows selected, written to {name}, in ")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_written_or_says_which_column_is_missing(typed: Run, tmp_path: Path, name: str) -> None:
    for image in IMAGES:
        shutil.copy(EXAMPLES / image, tmp_path)
    pq.write_table(pa.table({"image": IMAGES, "other": range(len(IMAGES))}), "r.parquet")
    out = "o" if FORMATS[name].destination != "file" or FORMATS[name].suffixes else "o.json"
    words = ["select", "r.parquet", "--format", name, "--out", out]
    ran = typed(*words)
    if FORMATS[name].tasks:
        assert ran.code == 2 and ran.err.startswith(f"blip2: --format {name} needs a column ")
    else:
        assert ran.code == 0


@pytest.mark.parametrize("name", ["sidecar", "imagefolder", "webdataset", "coco"])
def test_captions_go_to_the_formats_of_captions(typed: Run, results: str, name: str) -> None:
    out = "o.json" if name == "coco" else "o"
    assert typed("select", results, "--where", "error is null", "--format", name, "--out", out).code == 0
    if name == "sidecar":
        assert sorted(path.read_text() for path in Path("o").iterdir()) == sorted(
            r["caption"] for r in ROWS if r["caption"]
        )
    elif name == "coco":
        assert json.loads(Path("o.json").read_text())[0]["caption"] == "a blue circle"
    else:
        assert typed("caption", "o", "--dry-run").out.splitlines()[1].split() == ["rows", "3", "rows"]


def test_answers_and_features_go_to_their_formats(typed: Run, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"image": "a.png", "question_id": 5, "answer": "yes", "error": None}])
    assert typed("select", "a.jsonl", "--format", "vqa", "--out", "r.json").code == 0
    assert json.loads(Path("r.json").read_text()) == [{"question_id": 5, "answer": "yes"}]
    features = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(24, dtype=np.float32).reshape(3, 2, 4))
    pq.write_table(pa.table({"image": ["a", "b", "c"], "features": features}), "f.parquet")
    assert typed("select", "f.parquet", "--where", "features[1] > 0 and image <> 'b'", "--out", "g.parquet").code == 0
    assert pq.read_table("g.parquet").column("features").combine_chunks().to_numpy_ndarray().tolist()[0][0][0] == 16
    assert typed("select", "f.parquet", "--where", "image <> 'a'", "--format", "npy", "--out", "n").code == 0
    assert np.load("n/img_emb/img_emb_00000.npy").shape == (2, 2, 4)


def test_images_are_copied_once_and_nothing_is_overwritten(typed: Run, tmp_path: Path) -> None:
    for folder, image in (("a", IMAGES[0]), ("b", IMAGES[1]), ("c", IMAGES[0])):
        Path(folder).mkdir()
        shutil.copy(EXAMPLES / image, f"{folder}/x.png")
    Path("d").mkdir()
    Path("d/x-2.png").write_text("mine")
    rows = [{"image": f"{folder}/x.png", "id": n} for n, folder in enumerate("abac")]
    write(tmp_path / "r.jsonl", [*rows, {"image": "gone.png", "id": 9}])
    ran = typed("select", "r.jsonl", "--images-to", "d")
    assert ran.code == 3 and ran.out == ""
    assert "warning: gone.png: missing" in ran.err
    assert ran.err.endswith("2 images copied to d, 1 there already, 1 not found\n"), "c/x.png is equal to a/x.png"
    assert {path.name for path in Path("d").iterdir()} == {"x.png", "x-2.png", "x-3.png"}
    assert Path("d/x-2.png").read_text() == "mine"
    assert Path("d/x-3.png").read_bytes() == Path("b/x.png").read_bytes()
    again = typed("select", "r.jsonl", "--images-to", "d", "--where", "id < 9")
    assert again.code == 0 and again.err.endswith("0 images copied to d, 3 there already, 0 not found\n")


def test_long_names_are_cut_to_what_a_folder_takes(typed: Run, tmp_path: Path) -> None:
    for start in ("1", "2"):
        shutil.copy(EXAMPLES / IMAGES[int(start)], start + "写" * 83 + ".png")
    write(tmp_path / "r.jsonl", [{"image": start + "写" * 83 + ".png"} for start in ("1", "2")])
    ran = typed("select", "r.jsonl", "--images-to", "d")
    assert ran.code == 0 and ran.err.endswith("2 images copied to d, 0 not found\n")
    assert {path.name for path in Path("d").iterdir()} == {"写" * 66 + ".png", "写" * 66 + "-2.png"}


def test_links_in_the_folder_are_not_written_through(typed: Run, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / IMAGES[0], "x.png")
    Path("mine").write_text("mine")
    Path("d").mkdir()
    Path("d/.x.png.tmp.blip2").symlink_to(tmp_path / "mine")
    write(tmp_path / "r.jsonl", [{"image": "x.png"}])
    assert typed("select", "r.jsonl", "--images-to", "d").code == 0
    assert Path("mine").read_text() == "mine"
    assert [path.name for path in Path("d").iterdir()] == ["x.png"]


def test_images_are_linked(typed: Run, results: str) -> None:
    words = ["select", results, "--where", "probability > 0.9", "--images-to", "d", "--link", "--out", "o.csv"]
    assert typed(*words).code == 0
    links = sorted(Path("d").iterdir())
    assert [link.name for link in links] == [IMAGES[0], IMAGES[2]]
    assert all(link.is_symlink() and link.read_bytes() == (EXAMPLES / link.name).read_bytes() for link in links)
    assert Path("o.csv").exists()


def test_images_within_results_get_a_name_and_cannot_be_linked(typed: Run, tmp_path: Path) -> None:
    data = [(EXAMPLES / name).read_bytes() for name in IMAGES[:2]]
    pq.write_table(pa.table({"image": data, "caption": ["x", "y"]}), "r.parquet")
    assert typed("select", "r.parquet", "--where", "caption = 'y'", "--images-to", "d").code == 0
    (path,) = Path("d").iterdir()
    assert (path.name, path.read_bytes()) == ("r.parquet_1.png", data[1])
    refused = typed("select", "r.parquet", "--images-to", "l", "--link")
    assert refused.code == 3 and "cannot be linked" in refused.err


def test_names_in_results_do_not_lead_out_of_the_folder(typed: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(EXAMPLES / IMAGES[0], "x.png")
    Path("secret.txt").write_text("secret")
    write(tmp_path / "in" / "r.jsonl", [{"image": "../x.png"}, {"image": "../secret.txt"}, {"image": "/etc/passwd"}])
    assert typed("select", "in/r.jsonl", "--images-to", "d").code == 3
    assert [path.name for path in Path("d").iterdir()] == ["x.png"], "what is not an image is not copied"
    assert typed("select", "in/r.jsonl", "--images-to", "e", "--image-root", "in").code == 3
    assert not any(Path("e").iterdir())


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


def test_wrong_options_are_answered_in_two_lines(typed: Run, results: str) -> None:
    Path("file").write_text("")
    for words, message in (
        ((), "no results are given"),
        ((results, "--link"), "--link needs --images-to"),
        ((results, "--where", " "), "--where is empty"),
        ((results, "--images-to", "file"), "--images-to file is not a folder"),
        ((results, "--images-to", "a/b", "--where", "id + 1"), "cannot write a/b: there is no folder a"),
        ((results, "--out", results), f"{results} is an input"),
        ((results, "--where", "nothing = 1"), "--where 'nothing = 1': Referenced column \"nothing\" is not there"),
        (("nothing.jsonl",), "no such input: nothing.jsonl"),
        ((results, "--limit", 0), "--limit 0 is below 1"),
    ):
        ran = typed("select", *words)
        assert ran.code == 2 and ran.err.startswith(f"blip2: {message}") and ran.err.count("\n") == 2, ran.err
    assert ids(typed("select", results, "--where", "id > 7", "--limit", 2)) == [8, 9]


def test_without_duckdb_the_package_is_named(typed: Run, results: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert "pip install 'blip2cli[select]'" in typed("select", results, "--where", "true").err
    assert ids(typed("select", results, "--limit", 1)) == [7]


def test_a_table_on_a_terminal_has_the_columns_of_the_results(
    typed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "r.jsonl", [{"image": "a.png", "id": 7, "p": 0.987654, "caption": "a red circle", "error": None}])
    monkeypatch.setattr(
        "blip2cli.outputs.stdout.open_stdout", lambda target, settings, layout, header: TableStream(layout)
    )
    heading, row = typed("select", "r.jsonl").out.splitlines()
    assert heading.split() == ["image", "id", "p", "caption"]
    assert row.split() == ["a.png", "7", "0.988", "a", "red", "circle"]
