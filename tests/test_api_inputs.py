"""The Python API takes what the command line takes, and what Python has; mistakes are answered in our words."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blip2cli import Blip2
from blip2cli.errors import UsageError
from tests.conftest import Typed

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
CIRCLE, TRIANGLE = EXAMPLES / "red-circle.png", EXAMPLES / "teal-triangle.png"
CAPTIONS = ["a red circle", "a teal triangle"]


@pytest.fixture(scope="module")
def tiny() -> Blip2:
    return Blip2("tiny", dtype="fp32", batch_size=4, workers=0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images, and a manifest of them, in the current folder."""
    (tmp_path / "photos").mkdir()
    shutil.copy(CIRCLE, tmp_path / "photos" / "a.png")
    shutil.copy(TRIANGLE, tmp_path / "photos" / "b.png")
    rows = [{"image": f"photos/{name}.png", "id": name, "question": "what shape is it?"} for name in "ab"]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def captions(rows: Any) -> list[str]:
    return [row["caption"] for row in rows]


@pytest.mark.parametrize(
    "images",
    ["photos", Path("photos"), "photos/*.png", "m.jsonl", ["photos"], [Path("photos/a.png"), "photos/b.pn*"]],
    ids=str,
)
def test_names_are_those_of_the_command_line(tiny: Blip2, folder: Path, images: Any) -> None:
    rows = list(tiny.caption(images))
    assert captions(rows) == CAPTIONS
    assert [row["image"] for row in rows] == ["photos/a.png", "photos/b.png"]
    assert [row.get("id") for row in rows] == (["a", "b"] if images == "m.jsonl" else [None, None])


def test_questions_in_a_column_are_asked(tiny: Blip2, folder: Path) -> None:
    rows = list(tiny.vqa("m.jsonl"))
    assert [(row["id"], row["question"], row["answer"]) for row in rows] == [
        ("a", "what shape is it?", "circle"),
        ("b", "what shape is it?", "triangle"),
    ]
    assert list(tiny.answer("m.jsonl", limit=1)) == rows[:1]


def test_questions_with_names_have_a_column_each(tiny: Blip2) -> None:
    (row,) = tiny.vqa(CIRCLE, {"shape": "what shape is it?", "colour": "what colour is {it}?"})
    assert list(row) == ["image", "shape", "colour", "error"] and row["shape"] == "circle"


def test_several_prompts_have_a_row_each(tiny: Blip2) -> None:
    assert [row["prompt"] for row in tiny.caption(CIRCLE, ["a", "a red"])] == ["a", "a red"]


def pixels() -> np.ndarray:
    return np.asarray(Image.open(CIRCLE).convert("RGB"))


ONE_IMAGE: dict[str, Callable[[], Any]] = {
    "BytesIO": lambda: io.BytesIO(CIRCLE.read_bytes()),
    "open file": lambda: CIRCLE.open("rb"),
    "memoryview": lambda: memoryview(CIRCLE.read_bytes()),
    "uint8": pixels,
    "channels first": lambda: np.moveaxis(pixels(), -1, 0),
    "fractions": lambda: pixels() / 255,
    "int64": lambda: pixels().astype(np.int64),
    "RGBA": lambda: np.asarray(Image.open(CIRCLE).convert("RGBA")),
    "tensor": lambda: torch.from_numpy(pixels().copy()).permute(2, 0, 1),
    "bf16 tensor": lambda: (torch.from_numpy(pixels().copy()).permute(2, 0, 1) / 255).bfloat16(),
    "Hugging Face": lambda: {"bytes": CIRCLE.read_bytes(), "path": None},
}


@pytest.mark.filterwarnings("ignore:unclosed file")
@pytest.mark.parametrize("kind", ONE_IMAGE)
def test_an_image_of_every_kind_is_read_alone_and_in_a_list(tiny: Blip2, kind: str) -> None:
    assert captions(tiny.caption(ONE_IMAGE[kind]())) == ["a red circle"]
    assert captions(tiny.caption([ONE_IMAGE[kind](), TRIANGLE])) == CAPTIONS


def test_pixels_of_arrays_are_those_of_files(tiny: Blip2) -> None:
    exact = next(tiny.embed(CIRCLE))["features"]
    for image in (pixels(), pixels() / 255, torch.from_numpy(pixels().copy()).permute(2, 0, 1)):
        assert np.array_equal(next(tiny.embed(image))["features"], exact)


def test_a_sparse_tensor_is_read_like_any_other(tiny: Blip2) -> None:
    assert captions(tiny.caption(torch.tensor(pixels()).to_sparse())) == ["a red circle"]


def test_parts_of_arrow_tables_are_read(tiny: Blip2) -> None:
    import pyarrow as pa

    table = pa.table({"image": [str(CIRCLE), str(TRIANGLE)]})
    for images in (table.to_batches()[0], table.to_reader(), table["image"], list(table["image"])):
        assert captions(tiny.caption(images)) == CAPTIONS


def test_an_array_of_images_is_several(tiny: Blip2) -> None:
    stack = np.stack([np.asarray(Image.open(path).convert("RGB").resize((64, 64))) for path in (CIRCLE, TRIANGLE)])
    assert len(list(tiny.caption(stack))) == len(list(tiny.caption(torch.from_numpy(stack)))) == 2
    grey = np.zeros((20, 30), np.uint8)
    assert len(list(tiny.caption([grey, grey > 0, grey[..., None]]))) == 3


def _pandas(records: list[dict]) -> Any:
    import pandas

    return pandas.DataFrame(records)


def _polars(records: list[dict]) -> Any:
    import polars

    return polars.DataFrame(records)


def _arrow(records: list[dict]) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(records)


def _dataset(records: list[dict]) -> Any:
    import datasets

    return datasets.Dataset.from_list(records)


TABLES = {"pandas": _pandas, "polars": _polars, "arrow": _arrow, "datasets": _dataset}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_are_manifests(tiny: Blip2, folder: Path, kind: str) -> None:
    table = TABLES[kind](
        [
            {"photo": "photos/a.png", "n": 1, "question": "what shape is it?"},
            {"photo": None, "n": 2, "question": "what shape is it?"},
            {"photo": "photos/b.png", "n": 3, "question": "what colour is it?"},
        ]
    )
    rows = list(tiny.caption(table, image_column="photo"))
    assert captions(rows) == ["a red circle", None, "a teal triangle"]
    assert [(row["image"], row["n"]) for row in rows] == [("photos/a.png", 1), ("#1", 2), ("photos/b.png", 3)]
    assert rows[1]["error"] == "missing: column photo is empty"
    answers = [row["answer"] for row in tiny.vqa(table, image_column="photo")]
    assert answers == ["circle", None, "teal"]
    with pytest.raises(UsageError) as refused:
        tiny.caption(table)
    assert "no column that is known to hold images" in refused.value.message
    assert refused.value.hint == "Name it, for example image_column='photo'. It has: photo, n, question."
    with pytest.raises(UsageError, match="has no column picture"):
        tiny.caption(table, image_column="picture")


def test_images_in_a_dataset_are_not_decoded_before(tiny: Blip2, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    records = {"image": [str(CIRCLE), str(TRIANGLE)], "id": [1, 2]}
    features = datasets.Features({"image": datasets.Image(), "id": datasets.Value("int64")})
    dataset = datasets.Dataset.from_dict(records, features=features)
    monkeypatch.setattr(datasets.Image, "decode_example", lambda *_, **__: pytest.fail("decoded"))
    assert captions(tiny.caption(dataset)) == CAPTIONS
    stream = dataset.to_iterable_dataset()
    assert [row["id"] for row in tiny.caption(stream)] == [1, 2]
    with pytest.raises(UsageError) as refused:
        tiny.caption(datasets.DatasetDict({"train": dataset, "test": dataset}))
    assert refused.value.hint == "Give one, for example dataset['train']."


def test_the_only_split_of_a_dataset_need_not_be_named(tiny: Blip2) -> None:
    import datasets

    dataset = datasets.Dataset.from_dict({"image": [str(CIRCLE), str(TRIANGLE)]})
    assert captions(tiny.caption(datasets.DatasetDict({"train": dataset}))) == CAPTIONS
    stream = dataset.to_iterable_dataset()
    assert captions(tiny.caption(datasets.IterableDatasetDict({"train": stream}))) == CAPTIONS
    with pytest.raises(UsageError, match="the data set has no splits"):
        tiny.caption(datasets.DatasetDict())


def test_cells_of_a_dataframe_may_be_images_and_arrays(tiny: Blip2) -> None:
    frame = _pandas([{"image": Image.open(CIRCLE), "x": 0.5}, {"image": pixels(), "x": float("nan")}])
    rows = list(tiny.caption(frame))
    assert captions(rows) == ["a red circle"] * 2 and [row["x"] for row in rows] == [0.5, None]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (7, "a value of type int is neither an image nor a collection of images"),
        (None, "a value of type NoneType is neither an image nor a collection of images"),
        ({"a": 1}, "a value of type dict is neither an image nor a collection of images"),
        ([CIRCLE, 7], "image 1 is of type int, which is not an image"),
        ([{"path": "a"}], "image 0 is of type dict, which is not an image"),
        ([np.zeros((5, 5, 7), np.uint8)], "image 0 is an array of 5 x 5 x 7, which is not an image"),
        ([np.zeros((5, 5)) - 1], "image 0 is an array of fractions that are not from 0 to 1"),
        ([np.full((5, 5), 300)], "image 0 is an array of int64 with values that are not from 0 to 255"),
        (np.array(3), "image 0 is an array of 0 dimensions, which is not an image"),
        (torch.tensor(3), "image 0 is an array of 0 dimensions, which is not an image"),
        (torch.zeros(1, 1, 3, 8, 8), "image 0 is an array of 1 x 1 x 3 x 8 x 8, which is not an image"),
        (
            torch.empty(3, 8, 8, device="meta"),
            "image 0 is a tensor that cannot be read: Cannot copy out of meta tensor; no data!",
        ),
        ([io.StringIO("x")], "image 0 is a file opened as text"),
        ("gone.png", "no such input: gone.png"),
        ("no such folder", "no such input: no such folder"),
    ],
    ids=lambda given: given if isinstance(given, str) else type(given).__name__,
)
def test_what_is_not_an_image_is_one_exception(tiny: Blip2, images: Any, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        list(tiny.caption(images))
    assert refused.value.message == message and refused.value.hint


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.caption(CIRCLE, max_tokens=3), "caption() has no argument max_tokens; did you mean max_new_t"),
        (lambda m: m.vqa(CIRCLE, "x?", num_beam=3), "answer() has no argument num_beam; did you mean num_beams?"),
        (lambda m: m.embed(CIRCLE, num_beams=3), "embed() has no argument num_beams"),
        (lambda m: m.match(CIRCLE, "x", threshhold=3), "match() has no argument threshhold"),
        (lambda m: m.caption(CIRCLE, num_beams="3"), "num_beams='3' is not a whole number"),
        (lambda m: m.caption(CIRCLE, num_beams=0), "num_beams=0 is below 1"),
        (lambda m: m.caption(CIRCLE, scores="yes"), "scores='yes' is neither True nor False"),
        (lambda m: m.caption(CIRCLE, top_p=2), "top_p=2 is above 1"),
        (lambda m: m.caption(CIRCLE, prompt=3.5 and [3]), "3 is not a text"),
        (lambda m: m.embed(CIRCLE, features="vit"), "features='vit' is not one of 'qformer', 'vision', 'text', 'itc'"),
        (lambda m: Blip2("tiny", precision="fp16"), "Blip2() has no argument precision; did you mean revision?"),
        (lambda m: Blip2("tiny", dtype="fp8"), "dtype='fp8' is not one of"),
        (lambda m: Blip2("tiny", workers=2.5), "workers=2.5 is not a whole number"),
    ],
)  # fmt: skip
def test_mistakes_in_keywords_are_answered_in_our_words(
    tiny: Blip2, call: Callable[[Blip2], Any], message: str
) -> None:
    with pytest.raises(UsageError) as refused:
        call(tiny)
    assert refused.value.message.startswith(message) and refused.value.hint


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"is red": "is it red?"}, "a question cannot be named 'is red'"),
        ({"a=b": "is it red?"}, "a question cannot be named 'a=b'"),
        ({"": "is it red?"}, "a question cannot be named ''"),
        ({1: "is it red?"}, "a question cannot be named '1'"),
        ({"a": ""}, "there is no question in 'a='"),
        ({"a": None}, "None is not a text"),
        (["is it red?", None], "None is not a text"),
        (7, "7 is not a text"),
    ],
    ids=str,
)
def test_wrong_questions_are_one_exception(tiny: Blip2, question: Any, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        tiny.vqa(CIRCLE, question)
    assert refused.value.message == message


def test_a_prompt_is_not_taken_from_the_names_of_a_dict(tiny: Blip2) -> None:
    with pytest.raises(UsageError) as refused:
        tiny.caption(CIRCLE, {"a": "a photo of"})
    assert refused.value.message == "{'a': 'a photo of'} is not a text"


def test_choices_may_be_a_text_as_on_the_command_line(tiny: Blip2) -> None:
    rows = [next(tiny.vqa(CIRCLE, "is it red?", choices=choices)) for choices in ("yes, no", ["yes", "no"])]
    assert rows[0] == rows[1] and rows[0]["answer"] in ("yes", "no")
    for end in ("\n", "\r", "\u2028"):
        row = next(tiny.vqa(CIRCLE, "is it red?", choices=["yes", f"no{end}way"]))
        assert row["answer"] == "yes" and len(row["probabilities"]) == 2
    with pytest.raises(UsageError) as refused:
        tiny.vqa(CIRCLE, "is it red?", choices=[True, False])
    assert refused.value.message == "True is not a text"


def test_a_bad_image_that_python_opened_is_a_row_with_an_error(tiny: Blip2) -> None:
    torn = Image.open(io.BytesIO(CIRCLE.read_bytes()[:300]))
    closed = CIRCLE.open("rb")
    closed.close()
    rows = list(tiny.caption([torn, closed, Image.open(CIRCLE)]))
    assert [row["error"].partition(":")[0] for row in rows[:2]] == ["unreadable"] * 2
    assert (rows[2]["caption"], rows[2]["error"]) == ("a red circle", None)
    table = list(tiny.caption(_pandas([{"image": torn, "id": 1}, {"image": Image.open(CIRCLE), "id": 2}])))
    assert [row["id"] for row in table] == [1, 2] and table[0]["error"].startswith("unreadable: ")
    assert table[1]["caption"] == "a red circle"


def test_features_are_searched_by_texts_and_images_as_on_the_command_line(
    tiny: Blip2, tmp_path: Path, typed: Callable[..., Typed]
) -> None:
    feats = tmp_path / "f.parquet"
    assert typed("embed", CIRCLE, TRIANGLE, "--features", "itc", "--dtype", "fp32", "--out", feats).code == 0
    words = ("a teal triangle", "a red circle")
    assert (
        list(tiny.search(feats, words, top_k=1)) == typed("search", feats, *words, "--top-k", 1, "--dtype", "fp32").rows
    )
    (row,) = tiny.search(str(feats), image=CIRCLE, top_k=5)
    assert (row["image"], row["query"], row["rank"]) == (str(TRIANGLE), str(CIRCLE), 1)
    for image in (Image.open(CIRCLE), pixels(), [CIRCLE.read_bytes()]):
        first, _ = tiny.search(feats, image=image)
        assert (first["image"], first["query"]) == (str(CIRCLE), "#0")
    for options, said in (
        ({}, "no query is given"),
        ({"query": " "}, "a query is empty"),
        ({"query": "x", "top_k": 0}, "top_k=0 is not a whole number from 1"),
        ({"query": "x", "topk": 3}, "search() has no argument topk; did you mean top_k?"),
        ({"image": 7}, "a value of type int is neither an image nor a collection of images"),
        ({"image": [7]}, "image 0 is of type int, which is not an image"),
        ({"query": 7}, "7 is not a text"),
    ):
        with pytest.raises(UsageError) as refused:
            list(tiny.search(feats, **options))
        assert refused.value.message == said and refused.value.hint
    for file, message in (
        (tmp_path / "gone.parquet", "gone.parquet"),
        ([1], "takes the name of a feature file, not list"),
    ):
        with pytest.raises(UsageError) as refused:
            tiny.search(file, "x")
        assert message in refused.value.message
