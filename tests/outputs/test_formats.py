"""What stands in an output, and that others can read it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from blip2cli import __version__
from tests.conftest import Typed

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
Run = Callable[..., Typed]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A manifest of good and bad images, with a number, a text and a list."""
    (tmp_path / "text.jpg").write_text("no image")
    lines = [
        {"image": str(EXAMPLES / "red-circle.png"), "id": 3, "note": "größer", "tags": ["a", "b"]},
        {"image": "text.jpg", "id": 1, "note": None, "tags": []},
        {"image": str(EXAMPLES / "teal-triangle.png"), "id": 2, "note": 'say "hi"\n', "tags": None},
        {"image": "gone.jpg", "id": None, "note": "", "tags": ["c"]},
    ]
    manifest = tmp_path / "mixed.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest


EXPECTED = [
    {"id": 3, "note": "größer", "tags": ["a", "b"], "caption": "a red circle", "error": None},
    {
        "id": 1,
        "note": None,
        "tags": [],
        "caption": None,
        "error": "unsupported: not an image in a known format",
    },
    {"id": 2, "note": 'say "hi"\n', "tags": None, "caption": "a teal triangle", "error": None},
    {"id": None, "note": "", "tags": ["c"], "caption": None, "error": "missing: no such file"},
]


def with_duckdb(path: Path) -> list[dict[str, Any]]:
    found = duckdb.sql(f"select * from '{path}'")
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def with_pandas(path: Path) -> list[dict[str, Any]]:
    read = pd.read_parquet if path.suffix == ".parquet" else lambda p: pd.read_json(p, lines=True)
    frame = read(path).astype(object)
    records: list[dict[str, Any]] = frame.where(frame.notna(), None).to_dict("records")
    return [{k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in record.items()} for record in records]


def with_polars(path: Path) -> list[dict[str, Any]]:
    return (pl.read_parquet if path.suffix == ".parquet" else pl.read_ndjson)(path).to_dicts()


def with_datasets(path: Path) -> list[dict[str, Any]]:
    kind = "parquet" if path.suffix == ".parquet" else "json"
    return list(datasets.load_dataset(kind, data_files=str(path), cache_dir=str(path.parent / "cache"))["train"])


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rows_round_trip_through_what_people_read_them_with(typed: Run, mixed: Path, suffix: str) -> None:
    out = Path(f"out{suffix}").absolute()
    assert typed("caption", mixed, "--out", out).code == 3
    names = ["image", "id", "note", "tags", "caption", "error"]
    for read in (with_duckdb, with_pandas, with_polars, with_datasets):
        rows = read(out)
        assert list(rows[0]) == names, read
        assert [row.pop("image").rpartition("/")[2] for row in rows] == [
            "red-circle.png",
            "text.jpg",
            "teal-triangle.png",
            "gone.jpg",
        ]
        assert rows == EXPECTED, read


@pytest.mark.parametrize("store", ["fp32", "fp16"])
def test_features_are_tensors_of_fixed_shape_that_others_read(typed: Run, tmp_path: Path, store: str) -> None:
    (tmp_path / "bad.png").touch()
    ran = typed("embed", EXAMPLES / "red-circle.png", "bad.png", "--store", store, "--out", "f.parquet")
    assert ran.code == 3
    table = pq.read_table("f.parquet")
    kind = table.schema.field("features").type
    assert kind.extension_name == "arrow.fixed_shape_tensor" and kind.shape == [8, 128]
    assert str(kind.value_type) == {"fp32": "float", "fp16": "halffloat"}[store]
    assert table["features"].null_count == 1 and not table["features"][1].is_valid
    tensor = table["features"].chunk(0)[0].to_numpy()
    dtype = {"fp32": np.float32, "fp16": np.float16}[store]
    assert tensor.shape == (8, 128) and tensor.dtype == dtype and np.abs(tensor).max() > 0.1
    flat = tensor.reshape(-1)
    assert np.array_equal(pd.read_parquet("f.parquet")["features"][0], flat)
    assert np.array_equal(np.array(pl.read_parquet("f.parquet")["features"][0], dtype=dtype), flat)
    assert np.array_equal(np.array(duckdb.sql("select features from 'f.parquet'").fetchall()[0][0], dtype=dtype), flat)
    assert pd.read_parquet("f.parquet")["features"][1] is None


def test_jsonl_holds_features_as_nested_lists(typed: Run) -> None:
    (row,) = typed("embed", EXAMPLES / "red-circle.png").rows
    assert np.array(row["features"]).shape == (8, 128)


@pytest.mark.parametrize(
    ("options", "shape"),
    [(("--pool", "mean"), [128]), (("--features", "vision"), [128]), (("--features", "qformer"), [8, 128])],
)
def test_shapes_of_features(typed: Run, options: tuple[str, ...], shape: list[int]) -> None:
    typed("embed", EXAMPLES / "red-circle.png", *options, "--out", "f.parquet")
    assert pq.read_schema("f.parquet").field("features").type.shape == shape


def test_the_metadata_of_a_parquet_file_holds_the_settings(typed: Run) -> None:
    ran = typed(
        *("vqa", EXAMPLES / "red-circle.png", "-p", "what shape is it?", "--out", "a.parquet"),
        *("--num-beams", 2, "--max-new-tokens", 5, "--dtype", "fp32", "--seed", 4),
    )
    assert ran.code == 0
    told = json.loads(pq.read_schema("a.parquet").metadata[b"blip2"])
    expected = {
        "task": "vqa",
        "model": "tiny",
        "revision": None,
        "dtype": "fp32",
        "precision": "fp32",
        "prompt": ["what shape is it?"],
        "num_beams": 2,
        "max_new_tokens": 5,
        "temperature": 0.0,
        "seed": 4,
        "version": __version__,
    }
    assert {name: told[name] for name in expected} == expected


def test_columns_of_the_tool_win_and_those_of_the_input_are_renamed(typed: Run) -> None:
    image = EXAMPLES / "red-circle.png"
    columns = {"path": str(image), "image": "mine", "answer": 1, "input_answer": 2, "error": 3}
    Path("m.jsonl").write_text(json.dumps(columns) + "\n")
    ran = typed("vqa", "m.jsonl", "--image-column", "path", "-p", "what shape is it?")
    assert ran.rows == [
        {
            "image": str(image),
            "input_image": "mine",
            "input_input_answer": 1,
            "input_answer": 2,
            "input_error": 3,
            "question": "what shape is it?",
            "answer": "circle",
            "error": None,
        }
    ]
    assert "blip2: warning: the input's column answer is written as input_input_answer" in ran.err


def test_numbers_that_json_has_no_word_for_are_null(typed: Run) -> None:
    image = EXAMPLES / "red-circle.png"
    Path("m.jsonl").write_text(json.dumps({"image": str(image), "a": [float("nan"), {"b": float("inf")}, 1.5]}) + "\n")
    assert typed("caption", "m.jsonl", "--out", "o.jsonl").code == 0
    assert '"a": [null, {"b": null}, 1.5]' in Path("o.jsonl").read_text()


def test_without_out_rows_go_to_stdout_and_talk_to_stderr(typed: Run) -> None:
    ran = typed("caption", EXAMPLES / "red-circle.png")
    assert ran.rows == [{"image": str(EXAMPLES / "red-circle.png"), "caption": "a red circle", "error": None}]
    assert ran.err.startswith("1 row, 0 with errors, in ") and ran.err.count("\n") == 1
