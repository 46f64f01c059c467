"""CSV, compressed lines, Arrow, result files of benchmarks and imagefolder, read by what people read them with."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import zstandard
from pycocotools.coco import COCO

from tests.conftest import Typed

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
Run = Callable[..., Typed]


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    """Good and bad images, with values that want care."""
    lines = [
        {"image": str(EXAMPLES / "red-circle.png"), "image_id": 7, "note": 'a "b", c\nd', "tags": ["x"]},
        {"image": "gone.jpg", "image_id": 8, "note": None, "tags": []},
        {"image": str(EXAMPLES / "teal-triangle.png"), "image_id": 9, "note": "=1+1", "tags": None},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return "m.jsonl"


def unpacked(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data).decode()
    if path.suffix == ".zst":
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
            return reader.read().decode()
    return data.decode()


@pytest.mark.parametrize("name", ["o.jsonl.gz", "o.jsonl.zst", "o.csv.gz", "o.csv.zst", "o.csv", "o.tsv"])
def test_compressed_and_plain_text_hold_the_same(typed: Run, manifest: str, name: str) -> None:
    plain = "p.jsonl" if "jsonl" in name else "p.tsv" if "tsv" in name else "p.csv"
    typed("caption", manifest, "--out", plain)
    assert typed("caption", manifest, "--out", name, "--commit-every", 0).code == 3
    assert unpacked(Path(name)) == Path(plain).read_text()


def test_csv_is_read_by_everybody(typed: Run, manifest: str) -> None:
    typed("caption", manifest, "--out", "o.csv")
    with open("o.csv", encoding="utf-8", newline="") as file:
        first, second, third = csv.DictReader(file)
    assert first["note"] == 'a "b", c\nd' and first["tags"] == '["x"]' and first["caption"] == "a red circle"
    assert (second["caption"], second["error"]) == ("", "missing: no such file")
    assert third["note"] == "=1+1"
    for captions in (
        pd.read_csv("o.csv")["caption"].tolist()[::2],
        pl.read_csv("o.csv")["caption"].to_list()[::2],
        [row[0] for row in duckdb.sql("select caption from 'o.csv'").fetchall()][::2],
    ):
        assert captions == ["a red circle", "a teal triangle"]


def test_features_in_csv_are_json(typed: Run) -> None:
    typed("embed", EXAMPLES / "red-circle.png", "--pool", "mean", "--out", "f.csv")
    assert np.array(json.loads(pd.read_csv("f.csv")["features"][0])).shape == (128,)


def test_csv_of_no_rows_names_its_columns(typed: Run) -> None:
    Path("m.csv").write_text("image\n")
    assert typed("caption", "m.csv", "--out", "o.csv").code == 0
    assert Path("o.csv").read_text() == "image,caption,error\n"


@pytest.mark.parametrize("name", ["o.arrow", "o.feather"])
def test_arrow_is_read_by_everybody(typed: Run, manifest: str, name: str) -> None:
    assert typed("caption", manifest, "--out", name).code == 3
    expected = ["a red circle", None, "a teal triangle"]
    frame = pd.read_feather(name)
    assert frame["caption"].astype(object).where(frame["caption"].notna(), None).tolist() == expected
    assert pl.read_ipc(name)["caption"].to_list() == expected
    with pa.memory_map(name) as source:
        table = pa.ipc.open_file(source).read_all()
    assert table["caption"].to_pylist() == expected and json.loads(table.schema.metadata[b"blip2"])["model"] == "tiny"
    typed("embed", EXAMPLES / "red-circle.png", "--out", f"f{name}")
    with pa.memory_map(f"f{name}") as source:
        assert pa.ipc.open_file(source).read_all()["features"].chunk(0)[0].to_numpy().shape == (8, 128)


def test_coco_results_are_evaluated(typed: Run, manifest: str) -> None:
    assert typed("caption", manifest, "--format", "coco", "--out", "r.json").code == 3
    coco = COCO()
    coco.dataset = {"info": {}, "images": [{"id": number} for number in (7, 8, 9)], "annotations": []}
    coco.createIndex()
    results = coco.loadRes("r.json")
    assert [results.imgToAnns[number][0]["caption"] for number in (7, 8, 9)] == ["a red circle", "", "a teal triangle"]
    assert json.loads(Path("r.json").read_text())[1]["error"] == "missing: no such file"


def test_coco_ids_come_from_file_names_where_no_column_has_them(typed: Run) -> None:
    name = "COCO_val2014_000000391895.png"
    Path(name).write_bytes((EXAMPLES / "red-circle.png").read_bytes())
    typed("caption", name, EXAMPLES / "blue-circle.png", "--format", "coco", "--out", "r.json")
    assert [entry["image_id"] for entry in json.loads(Path("r.json").read_text())] == [391895, "blue-circle"]


def test_vqa_results_have_every_question(typed: Run) -> None:
    image = str(EXAMPLES / "red-circle.png")
    lines = [{"image": image, "question": "what shape is it?", "question_id": 5}, {"image": image, "question_id": 6}]
    Path("q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert typed("vqa", "q.jsonl", "--format", "vqa", "--out", "r.json").code == 3
    assert json.loads(Path("r.json").read_text()) == [
        {"question_id": 5, "answer": "circle"},
        {"question_id": 6, "answer": "", "error": "missing: no text in column question"},
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("vqa", EXAMPLES, "-p", "what?", "--format", "vqa", "--out", "r.json"), "needs a column question_id"),
        (("caption", EXAMPLES, "--format", "vqa", "--out", "r.json"), "--format vqa is not for caption"),
        (("caption", EXAMPLES, "--format", "coco", "--out", "r"), "--format coco is one file, and r is a folder"),
        (
            ("caption", EXAMPLES, "--num-captions", 2, "--num-beams", 2, "--format", "coco", "--out", "r.json"),
            "one caption for each image",
        ),
        (("caption", EXAMPLES, "--out", "r.json"), "the name of r.json does not say which format"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(typed: Run, words: tuple[Any, ...], told: str) -> None:
    ran = typed(*words)
    assert ran.code == 2 and told in ran.err and len(ran.err.splitlines()) == 2


def test_imagefolder_is_loaded_by_datasets(typed: Run, manifest: str, tmp_path: Path) -> None:
    assert typed("caption", manifest, "--format", "imagefolder", "--out", "photos").code == 3
    loaded = datasets.load_dataset("imagefolder", data_dir="photos", cache_dir=str(tmp_path / "cache"))["train"]
    assert [(row["caption"], row["image"].size) for row in loaded] == [
        ("a red circle", (256, 256)),
        ("a teal triangle", (256, 256)),
    ]
    (error,) = map(json.loads, Path("photos/metadata.errors.jsonl").read_text().splitlines())
    assert error == {"row": 1, "image": "gone.jpg", "error": "missing: no such file"}


def test_imagefolder_leaves_images_where_they_are(typed: Run) -> None:
    Path("photos/a").mkdir(parents=True)
    Path("photos/a/x.png").write_bytes((EXAMPLES / "red-circle.png").read_bytes())
    assert typed("caption", "photos", "--format", "imagefolder", "--out", "photos").code == 0
    assert json.loads(Path("photos/metadata.jsonl").read_text()) == {"file_name": "a/x.png", "caption": "a red circle"}
    again = typed("caption", "photos", "--format", "imagefolder", "--out", "photos")
    assert again.code == 2 and "photos/metadata.jsonl exists" in again.err
    assert typed("caption", "photos", "--format", "imagefolder", "--out", "photos", "--overwrite").code == 0
    assert Path("photos/a/x.png").exists() and not Path("photos/images").exists()
    assert json.loads(Path("photos/metadata.jsonl").read_text()) == {"file_name": "a/x.png", "caption": "a red circle"}
    assert sorted(path.name for path in Path("photos").iterdir()) == ["a", "metadata.jsonl"]


def test_a_folder_being_captioned_in_place_is_gone_on_with(typed: Run) -> None:
    Path("photos").mkdir()
    for name in ("a", "b", "c"):
        Path(f"photos/{name}.png").write_bytes((EXAMPLES / "red-circle.png").read_bytes())
    Path("photos/errors.jsonl").write_text("mine")
    words = ("caption", "photos", "--format", "imagefolder", "--out", "photos")
    assert typed(*words, "--limit", 1).code == 0
    ran = typed(*words, "--resume")
    assert ran.code == 0 and "warning" not in ran.err
    rows = [json.loads(line) for line in Path("photos/metadata.jsonl").read_text().splitlines()]
    assert rows == [{"file_name": f"{name}.png", "caption": "a red circle"} for name in "abc"]
    assert Path("photos/errors.jsonl").read_text() == "mine"


OPTIONS = {"o.json": ("--format", "coco")}
"""Those that an output needs besides its name."""


def contents(out: Path) -> Any:
    if out.is_dir():
        return {path.name: contents(path) for path in sorted(out.iterdir())}
    if out.suffix == ".arrow":
        return pa.ipc.open_file(out).read_all().to_pylist()
    return out.read_bytes() if out.suffix in (".png", ".jpg") else unpacked(out)


@pytest.mark.parametrize("out", ["o.csv", "o.json", "o.jsonl.gz", "o.arrow"])
def test_a_finished_output_is_gone_on_with_and_its_errors_retried(typed: Run, manifest: str, out: str) -> None:
    words = ["caption", manifest, "--out", out, *OPTIONS.get(out, ())]
    typed(*words, "--limit", 2)
    assert typed(*words, "--resume").code == 3
    typed("caption", manifest, *OPTIONS.get(out, ()), "--out", f"whole-{out}")
    assert contents(Path(out)) == contents(Path(f"whole-{out}"))
    Path("gone.jpg").write_bytes((EXAMPLES / "blue-circle.png").read_bytes())
    assert typed(*words, "--resume", "--retry-errors").code == 0
    typed("caption", manifest, *OPTIONS.get(out, ()), "--out", f"mended-{out}")
    assert contents(Path(out)) == contents(Path(f"mended-{out}"))
