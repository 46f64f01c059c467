"""blip2 select: rows to every format, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2cli.outputs import FORMATS
from blip2cli.outputs.stdout import TableStream
from tests.commands.select.rows import EXAMPLES, IMAGES, ROWS, ids, write
from tests.conftest import Typed

Run = Callable[..., Typed]


@pytest.mark.parametrize("name", ["o.jsonl", "o.csv", "o.parquet", "o.arrow", "shards"])
def test_rows_go_to_every_format_of_rows(typed: Run, results: str, name: str) -> None:
    words = ["select", results, "--where", "id > 8", "--out", name]
    assert typed(*words).code == 0
    assert ids(typed("select", name)) == [9, 10]
    again = typed(*words)
    assert again.code == 2 and again.err.startswith(f"blip2: {name} exists")
    assert typed(*words, "--overwrite").err.startswith(f"2 of 4 rows selected, written to {name}, in ")


def test_a_function_of_lists_is_said_to_need_one_in_csv(typed: Run) -> None:
    Path("l.csv").write_text('image,captions\na.png,"[""x"", ""y""]"\nb.png,"[""z""]"\n')
    ran = typed("select", "l.csv", "--where", "list_contains(captions, 'x')")
    hint = """list_contains(from_json(captions, '["VARCHAR"]'), 'x')"""
    assert ran.code == 2 and hint.replace("captions", "NAME") in ran.err and ran.err.count("\n") == 2
    assert [row["image"] for row in typed("select", "l.csv", "--where", hint).rows] == ["a.png"]


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
        ((results, "--where", "id = "), "--where 'id = ': syntax error at its end"),
        ((results, "--where", "(id"), "--where '(id': syntax error at its end"),
        ((results, "--where", "id id"), "--where 'id id': syntax error at or near \"id\""),
        (("nothing.jsonl",), "no such input: nothing.jsonl"),
        ((results, "--limit", 0), "--limit 0 is below 1"),
    ):
        ran = typed("select", *words)
        assert ran.code == 2 and ran.err.startswith(f"blip2: {message}") and ran.err.count("\n") == 2, ran.err
    assert ids(typed("select", results, "--where", "id > 7", "--limit", 2)) == [8, 9]


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
