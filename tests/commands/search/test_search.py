"""`blip2 search`: a text or an image finds its pictures, in every format; ITM ranks again."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2cli.errors import UsageError
from blip2cli.features.files import open_features
from blip2cli.tiny.scenes import random_scene, render
from tests.conftest import Typed, approximate, rows_of
from tests.features.made import made

Run = Callable[..., Typed]

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"


@pytest.fixture
def pictures(typed: Run) -> str:
    """Features of the sample images, one of them broken."""
    manifest = [
        {"image": str(path), "label": path.stem} for path in sorted(EXAMPLES.glob("*.*")) if path.suffix != ".jsonl"
    ]
    Path("broken.png").write_bytes(b"no image")
    lines = [*manifest, {"image": "broken.png", "label": "broken"}]
    Path("pictures.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert typed("embed", "pictures.jsonl", "--features", "itc", "--out", "feats.parquet", "--dtype", "fp32").code == 3
    return "feats.parquet"


def test_a_text_finds_its_picture_and_carried_columns_come_along(typed: Run, pictures: str) -> None:
    done = typed("search", pictures, "a red circle", "a teal triangle", "-k", 2, "--dtype", "fp32")
    assert done.code == 0 and "2 queries over 6 rows, exact" in done.err
    assert [(row["query"], row["rank"]) for row in done.rows] == [
        ("a red circle", 1), ("a red circle", 2), ("a teal triangle", 1), ("a teal triangle", 2)
    ]  # fmt: skip
    assert [row["label"] for row in done.rows if row["rank"] == 1] == ["red-circle", "teal-triangle"]
    assert list(done.rows[0]) == ["image", "label", "query", "rank", "itc", "error"]
    match = typed("match", done.rows[0]["image"], "-t", "a red circle", "--dtype", "fp32").rows[0]
    assert done.rows[0]["itc"] == pytest.approx(match["itc"], abs=2e-6)


def test_every_format_of_features_gives_the_same_rows(typed: Run, pictures: str) -> None:
    expected = typed("search", pictures, "a blue circle", "--dtype", "fp32").rows
    assert len(expected) == 5
    typed("embed", "pictures.jsonl", "--features", "itc", "--out", "arrays", "--format", "npy", "--dtype", "fp32")
    typed("embed", "pictures.jsonl", "--features", "itc", "--out", "f.arrow", "--dtype", "fp32")
    typed("embed", "pictures.jsonl", "--features", "itc", "--out", "shards", "--shard-size", 2, "--dtype", "fp32")
    for path in ("arrays", "f.arrow", "shards"):
        assert typed("search", path, "a blue circle", "--dtype", "fp32").rows == approximate(expected), path


def test_an_image_finds_its_copies_with_a_score_of_one_and_not_itself(typed: Run, pictures: str) -> None:
    circle = EXAMPLES / "blue-circle.png"
    rows = typed("search", pictures, "--image", circle, "--dtype", "fp32", "-k", 4).rows
    assert len(rows) == 4 and str(circle) not in [row["image"] for row in rows]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4] and rows[0]["itc"] < 0.99
    Path("copy.png").write_bytes(circle.read_bytes())
    rows = typed("search", pictures, "--image", "copy.png", "--dtype", "fp32", "-k", 1).rows
    assert rows[0]["image"] == str(circle) and rows[0]["itc"] == pytest.approx(1, abs=1e-5)


def test_the_model_is_that_of_the_features(typed: Run, pictures: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BLIP2_MODEL")
    done = typed("search", pictures, "a red circle", "-k", 1)
    assert done.code == 0 and done.rows[0]["label"] == "red-circle"


def test_itc_and_itm_rank_again_and_unreadable_images_stand_behind(typed: Run, pictures: str) -> None:
    rows = typed("search", pictures, "a circle", "--rerank", 10, "--dtype", "fp32").rows
    scores = {
        row["image"]: row["itm"]
        for row in typed("match", "pictures.jsonl", "-t", "a circle", "--dtype", "fp32").rows
        if not row["error"]
    }
    assert {row["image"] for row in rows} == set(scores)
    sums = [row["itc"] + row["itm"] for row in rows]
    assert sums == sorted(sums, reverse=True)
    assert all(row["itm"] == pytest.approx(scores[row["image"]], rel=1e-3) for row in rows)
    table = pq.read_table(pictures)
    names = pa.array([name.replace("red-circle", "gone") for name in table["image"].to_pylist()])
    pq.write_table(table.set_column(0, "image", names), "moved.parquet")
    done = typed("search", "moved.parquet", "a circle", "--rerank", 10, "--dtype", "fp32")
    assert done.code == 3 and "1 image was not ranked again: " in done.err
    assert [row["image"] for row in done.rows[:4]] == [row["image"] for row in rows if "red-circle" not in row["image"]]
    assert done.rows[4]["error"].startswith("missing") and done.rows[4]["itm"] is None and done.rows[4]["itc"]


def test_results_go_to_files_and_a_report(typed: Run, pictures: str) -> None:
    shown = typed("search", pictures, "a <b>circle</b>").rows
    done = typed("search", pictures, "a <b>circle</b>", "--out", "found.parquet", "--report", "found.html")
    assert done.code == 0 and not done.out
    table = pq.read_table("found.parquet")
    assert table.to_pylist() == shown and table.schema.field("rank").type == pa.int64()
    page = Path("found.html").read_text()
    assert "red-circle" in page and "<b>circle" not in page
    again = typed("search", pictures, "x", "--out", "found.parquet")
    assert again.code == 2 and "found.parquet exists" in again.err
    assert "--resume" not in again.err, "which search has not"
    typed("search", pictures, "a circle", "--out", "found.jsonl")
    assert len(rows_of(Path("found.jsonl").read_text())) == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no features are given"),
        (["feats.parquet"], "no query is given"),
        (["feats.parquet", " "], "an argument is empty"),
        (["feats.parquet", "red " * 90], "text-too-long"),
        (["feats.parquet", "--image", "broken.png"], "cannot search for broken.png: unsupported"),
        (["gone.parquet", "x"], "no such file: gone.parquet"),
        (["feats.parquet", str(EXAMPLES / "red-circle.png")], "red-circle.png is an image, not a text"),
        (["pictures.jsonl", "x"], "not a Parquet or Arrow file"),
        (["texts.parquet", "x"], "holds features of texts"),
        (["qformer.parquet", "x"], "holds qformer features"),
        (["broken.parquet", "x"], "cannot read broken.parquet"),
        (["feats.parquet", "x", "--rerank", "3"], "--rerank 3 is below --top-k 10"),
        (["feats.parquet", "x", "--rerank", "10", "--image", "a.png"], "--rerank cannot be used with --image"),
    ],
)
def test_what_cannot_be_searched_is_told(typed: Run, pictures: str, words: list[str], said: str) -> None:
    if "texts.parquet" in words:
        typed("embed", "--features", "itc", "--text", "a", "--out", "texts.parquet")
    elif "qformer.parquet" in words:
        typed("embed", EXAMPLES / "red-circle.png", "--out", "qformer.parquet")
    Path("broken.parquet").write_bytes(b"PAR1 nothing")
    done = typed("search", *words)
    assert done.code == 2 and said in done.err and done.err.count("\n") == 2


def test_features_of_another_model_are_refused(typed: Run, pictures: str, retrieval_checkpoint: Path) -> None:
    done = typed("search", pictures, "x", "--model", retrieval_checkpoint)
    assert done.code == 2
    assert done.err == (
        f"blip2: {pictures} was made by tiny, not by {retrieval_checkpoint}\n"
        f"       Type: blip2 search {pictures} x --model tiny\n"
    )


def test_features_that_cannot_be_searched_come_with_the_command_that_makes_others(typed: Run) -> None:
    typed("embed", EXAMPLES / "red-circle.png", "--out", "feats.parquet")
    assert typed("search", "feats.parquet", "x").err == (
        "blip2: feats.parquet holds qformer features\n"
        "       Type: blip2 embed ./photos --features itc --model tiny --out feats-itc.parquet\n"
    )


def test_an_image_finds_others_of_the_same_shape_and_colour(typed: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    for at in range(60):
        label = [("red", "circle"), ("blue", "circle"), ("red", "triangle"), ("green", "rectangle")][at % 4]
        render(random_scene(rng, 1, [label])).save(tmp_path / f"{at:02}.png")
    typed("embed", tmp_path, "--features", "itc", "--out", "scenes.parquet")
    asked = [word for at in range(8) for word in ("--image", tmp_path / f"{at:02}.png")]
    rows = typed("search", "scenes.parquet", *asked, "--top", 14).rows
    kinds = [int(Path(row["image"]).stem) % 4 == int(Path(row["query"]).stem) % 4 for row in rows]
    assert len(kinds) == 8 * 14 and sum(kinds) > 0.95 * len(kinds)


@pytest.mark.parametrize(
    ("said", "names", "message"),
    [
        (b"{", ["image", "features", "error"], "no known features"),
        (b"[]", ["image", "features", "error"], "no known features"),
        (b'{"features": "itc", "model": "tiny"}', ["n", "features", "error"], "no columns image and error"),
        (b'{"features": "itc", "model": "tiny"}', ["image", "features", "error"], "features of 16 numbers"),
    ],
)
def test_files_that_others_have_made_are_told_from_ours(
    typed: Run, tmp_path: Path, said: bytes, names: list[str], message: str
) -> None:
    made(tmp_path / "f.parquet", 20)
    table = pq.read_table("f.parquet").select(names).replace_schema_metadata({b"blip2": said})
    pq.write_table(table, "g.parquet")
    done = typed("search", "g.parquet", "a red circle")
    assert done.code == 2 and message in done.err


@pytest.mark.parametrize(
    "array",
    [np.array(3.0), np.array(["a"] * 6), np.zeros(6), np.zeros((6, 0, 8), np.float32), b"", b"\x93NUMPY" + b"x" * 99],
)
def test_arrays_that_are_no_features_are_told(typed: Run, pictures: str, array: np.ndarray | bytes) -> None:
    typed("embed", "pictures.jsonl", "--features", "itc", "--out", "arrays", "--format", "npy")
    (path,) = Path("arrays").glob("img_emb/*.npy")
    if isinstance(array, bytes):
        path.write_bytes(array)
    else:
        np.save(path, array)
    with pytest.raises(UsageError):
        open_features(Path("arrays"))


def test_a_report_fetches_no_url_of_a_feature_file_unasked(typed: Run, pictures: str) -> None:
    table = pq.read_table(pictures)
    names = pa.array([f"http://127.0.0.1:9/{at}.png" for at in range(len(table))])
    pq.write_table(table.set_column(0, "image", names), "urls.parquet")
    assert typed("search", "urls.parquet", "a circle", "--report", "found.html").code == 0
    assert "a URL in a manifest; --allow-remote fetches it" in Path("found.html").read_text()
