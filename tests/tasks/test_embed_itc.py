"""`embed --features itc`: what ITC compares, of images and of texts."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from blip2cli import Blip2
from tests.conftest import Typed

Embed = Callable[..., Typed]


@pytest.fixture
def embed(typed: Callable[..., Typed], retrieval_checkpoint: Path) -> Embed:
    words = ("--features", "itc", "-m", retrieval_checkpoint, "--dtype", "fp32", "--workers", 0, "--out")
    return lambda out, *given: typed("embed", *given, *words, out)


def features_of(path: str) -> np.ndarray:
    return pq.read_table(path)["features"].combine_chunks().to_numpy_ndarray()


def test_features_of_images_and_texts_give_the_scores_of_match(
    embed: Embed, typed: Callable[..., Typed], photos: Path, retrieval_checkpoint: Path
) -> None:
    texts = ["a red circle", "two gray rectangles and a teal circle"]
    assert embed("images.parquet", photos).code == 0
    assert embed("texts.parquet", "--text", texts[0], "--text", texts[1]).code == 0
    images, read = features_of("images.parquet"), features_of("texts.parquet")
    assert images.shape == (12, 4, 16) and read.shape == (2, 16)
    for features in (images, read):
        np.testing.assert_allclose(np.linalg.norm(features, axis=-1), 1, atol=1e-6)
    match = typed("match", photos, "-t", texts[0], "-t", texts[1], "-m", retrieval_checkpoint, "--dtype", "fp32")
    np.testing.assert_allclose(
        (images @ read.T).max(axis=1).flatten(), [row["itc"] for row in match.rows], rtol=0, atol=1e-5
    )


def test_the_file_says_what_it_holds(embed: Embed, photos: Path, retrieval_checkpoint: Path) -> None:
    embed("images.parquet", photos, "--limit", 1, "--store", "fp16")
    said = json.loads(pq.read_schema("images.parquet").metadata[b"blip2"])
    assert said["features"] == "itc" and said["model"] == str(retrieval_checkpoint) and said["precision"] == "fp32"
    assert features_of("images.parquet").dtype == np.float16


def test_texts_of_a_manifest_that_cannot_be_read_are_error_rows(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text('{"words": "gray"}\n{"words": ""}\n' + json.dumps({"words": "red " * 90}))
    assert embed("texts.parquet", "texts.jsonl", "--text-column", "words").code == 3
    rows = pq.read_table("texts.parquet", columns=["text", "error"]).to_pylist()
    assert [(row["text"], row["error"]) for row in rows[:2]] == [
        ("gray", None), ("", "missing: column words is empty")
    ]  # fmt: skip
    assert rows[2]["error"].startswith("text-too-long: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--pool", "mean"], "--pool cannot be used with"), (["--text", "x"], "images have no text to embed")],
)
def test_what_does_not_go_together_is_said(embed: Embed, photos: Path, words: list[str], said: str) -> None:
    done = embed("x.parquet", photos, *words)
    assert done.code == 2 and said in done.err


def test_python_embeds_too(retrieval_checkpoint: Path, photos: Path) -> None:
    model = Blip2(str(retrieval_checkpoint), dtype="fp32", workers=0)
    assert next(model.embed([next(photos.rglob("*.png"))], features="itc"))["features"].shape == (4, 16)
