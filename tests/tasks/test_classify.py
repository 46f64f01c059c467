"""`blip2 classify`: classes by ITC and ITM as transformers computes them, from images and from features."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn import functional

from blip2cli import Blip2
from blip2cli.errors import UsageError
from blip2cli.model.retrieval import RetrievalModel
from blip2cli.settings.metadata import as_metadata
from blip2cli.tiny.class_scenes import write_scenes
from tests.conftest import Reference, Typed, approximate, rows_of

Run = Callable[..., Typed]

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CIRCLE = EXAMPLES / "red-circle.png"
SHAPES = ("--class", "a circle", "--class", "a triangle", "--class", "a rectangle")
CLASSES = ["gray", "a red circle", "a blue triangle and a circle"]
TEMPLATES = ["{}", "is it {}?"]


@pytest.fixture(scope="module")
def model(retrieval_checkpoint: Path) -> Blip2:
    return Blip2(str(retrieval_checkpoint), dtype="fp32", workers=0, batch_size=2)


@pytest.fixture(scope="module")
def two_photos(photos: Path) -> list[str]:
    return [str(path) for path in sorted(photos.glob("*.*"))[:2]]


@pytest.mark.parametrize("templates", [[], TEMPLATES], ids=["names", "templates"])
def test_probabilities_are_a_softmax_of_the_similarities_of_transformers(
    model: Blip2, retrieval_reference: Reference, two_photos: list[str], templates: list[str]
) -> None:
    for row in model.classify(two_photos, CLASSES, templates, top=3, temperature=0.5):
        similarities = []
        for name in CLASSES:
            theirs = [retrieval_reference(row["image"], text.format(name), False) for text in templates or ["{}"]]
            of_class = functional.normalize(torch.cat([each.text_embeds for each in theirs]).mean(dim=0), dim=-1)
            similarities.append((theirs[0].image_embeds[0] @ of_class).max())
            if not templates:
                torch.testing.assert_close(similarities[-1], theirs[0].logits_per_image[0, 0], rtol=0, atol=1e-6)
        expected = (torch.stack(similarities) / 0.5).softmax(dim=0)
        best = expected.argsort(descending=True)
        assert row["labels"] == [CLASSES[number] for number in best] and row["label"] == row["labels"][0]
        assert row["probabilities"] == pytest.approx(expected[best].tolist(), abs=2e-5)
        assert row["probability"] == row["probabilities"][0] and sum(row["probabilities"]) == pytest.approx(1)
        assert expected.max() - expected.min() > 0.01, "the classes must differ for this to say much"


def test_itm_among_the_best_classes_equals_the_logits_of_transformers(
    model: Blip2, retrieval_reference: Reference, two_photos: list[str]
) -> None:
    first = {row["image"]: row["labels"] for row in model.classify(two_photos, CLASSES, TEMPLATES, top=3)}
    for row in model.classify(two_photos, CLASSES, TEMPLATES, top=2, rerank=2):
        candidates = first[row["image"]][:2]
        logits = [
            torch.cat(
                [retrieval_reference(row["image"], text.format(name), True).logits_per_image for text in TEMPLATES]
            )
            for name in candidates
        ]
        log_odds = torch.stack([(each[:, 1] - each[:, 0]).mean() for each in logits])
        expected = dict(zip(candidates, log_odds.softmax(dim=0).tolist(), strict=True))
        assert dict(zip(row["labels"], row["probabilities"], strict=True)) == pytest.approx(expected, abs=2e-5)
        assert row["probabilities"] == sorted(row["probabilities"], reverse=True)


def test_itm_logits_equal_transformers_on_one_pair_at_a_time(
    model: Blip2, retrieval_reference: Reference, two_photos: list[str]
) -> None:
    from tests.model.test_retrieval import seen

    retrieval = model.model
    images = seen(retrieval, Path(two_photos[0]))
    ours = retrieval.itm_logits([(image, text) for image in images.values() for text in retrieval.read(CLASSES)])
    theirs = torch.cat([retrieval_reference(path, text, True).logits_per_image for path in images for text in CLASSES])
    torch.testing.assert_close(torch.tensor(ours), theirs, rtol=0, atol=1e-5)


def test_the_shapes_of_the_samples_are_named(typed: Run) -> None:
    ran = typed("classify", EXAMPLES / "red-circle.png", "gone.png", EXAMPLES / "teal-triangle.png", *SHAPES)
    assert ran.code == 2 and "no such input: gone.png" in ran.err
    Path("bad.png").write_text("x")
    ran = typed("classify", CIRCLE, "bad.png", EXAMPLES / "teal-triangle.png", *SHAPES)
    assert ran.code == 3
    assert [row["label"] for row in ran.rows] == ["a circle", None, "a triangle"]
    assert list(ran.rows[0]) == ["image", "label", "probability", "error"]
    assert ran.rows[1]["error"].startswith("unsupported")


def test_itm_tells_apart_which_colour_belongs_to_which_shape(typed: Run) -> None:
    write_scenes(Path("scenes"), 24, 2)
    accuracy = {}
    for rerank in ((), ("--rerank", 5)):
        words = ("--classes", "scenes/classes.txt", "--template", "a {}", *rerank, "--dtype", "fp32", "--overwrite")
        assert typed("classify", "scenes/images", *words, "--out", "o.jsonl").code == 0
        scores = json.loads(typed("score", "o.jsonl", "-r", "scenes/truth.csv").out)
        accuracy[rerank] = scores["metrics"]["accuracy"]
    assert accuracy[()] < 90 < accuracy["--rerank", 5], "docs/classify.md has 74.3 and 99.8 on 1,000 scenes"


def test_classes_are_encoded_once_whatever_the_number_of_images(
    typed: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    project = RetrievalModel._project_texts

    def counted(self: RetrievalModel, texts: Any) -> torch.Tensor:
        encoded.append(len(texts))
        return project(self, texts)

    monkeypatch.setattr(RetrievalModel, "_project_texts", counted)
    Path("names.txt").write_text("".join(f"number {number}\n" for number in range(1500)))
    ran = typed("classify", photos, "--classes", "names.txt", "--batch-size", 8, "--limit", 12, "--out", "o.jsonl")
    assert ran.code == 0, ran.err
    assert sum(encoded) == 1500 and max(encoded) == 8
    assert list(rows_of(Path("o.jsonl").read_text())[0]) == ["image", "label", "probability", "error"]
    assert len(Path("o.jsonl").read_text()) < 4000 and len(Path(".o.jsonl.blip2").read_text()) < 4000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.txt", "a circle\n\na triangle\n"),
        ("c.csv", "id,label\n1,a circle\n2,a triangle\n"),
        ("c.jsonl", '{"word": "a circle"}\n{"word": "a triangle"}\n'),
    ],
)
def test_classes_come_from_lines_or_from_a_column(typed: Run, name: str, text: str) -> None:
    Path(name).write_text(text)
    (row,) = typed("classify", CIRCLE, "--class", "a rectangle", "--classes", name, "--top-k", 3).rows
    assert row["label"] == "a circle" and set(row["labels"]) == {"a circle", "a triangle", "a rectangle"}


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with features for ITC of three images, one of which is bad, and with others."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("features")
    model = Blip2("tiny", dtype="fp32", workers=0)
    images = [str(CIRCLE), str(EXAMPLES / "teal-triangle.png")]
    arrays = [row["features"] for row in model.embed(images, features="itc")]
    shape = arrays[0].shape

    def write(name: str, shape: tuple[int, ...], **said: object) -> None:
        kind = pa.fixed_shape_tensor(pa.float32(), shape)
        values = [array.ravel()[: torch.Size(shape).numel()].tolist() for array in arrays]
        storage = pa.array([*values, None], kind.storage_type)
        columns = {
            "image": [*images, "bad.png"],
            "features": pa.ExtensionArray.from_storage(kind, storage),
            "error": [None, None, "unreadable: x"],
        }
        noted = {"task": "embed", "features": "itc", "model": "tiny", "revision": None, **said}
        pq.write_table(pa.table(columns).replace_schema_metadata(as_metadata(noted)), folder / name)

    write("f.parquet", shape)
    write("texts.parquet", (4,))
    write("short.parquet", (2, shape[1]))
    write("qformer.parquet", shape, features="qformer")
    write("other.parquet", shape, model="/models/other")
    write("pinned.parquet", shape, revision="abc")
    return folder


def test_features_give_what_their_images_give_and_no_image_is_read(
    typed: Run, features: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("bad.png").write_text("x")
    of_images = typed("classify", CIRCLE, EXAMPLES / "teal-triangle.png", *SHAPES, "--top", 2, "--dtype", "fp32").rows
    monkeypatch.delenv("BLIP2_MODEL")  # the file names its model
    ran = typed("classify", features / "f.parquet", *SHAPES, "--top", 2, "--dtype", "fp32")
    assert ran.code == 3 and "f.parquet holds features: they are read, and no images" in ran.err
    assert ran.rows[:2] == approximate(of_images) and list(ran.rows[0]) == list(of_images[0])
    assert ran.rows[2]["label"] is None and ran.rows[2]["error"] == "unreadable: x"


@pytest.mark.parametrize(
    ("names", "more", "said"),
    [
        (["f.parquet"], ("--rerank", 2), "--rerank needs images, and the input holds features"),
        (["f.parquet"], ("--model", "/x"), "f.parquet was made by tiny, not by /x"),
        (["other.parquet"], (), "other.parquet was made by /models/other, not by tiny"),
        (["pinned.parquet"], (), "pinned.parquet was made by revision abc, not by its default revision"),
        (["f.parquet", "other.parquet"], (), "other.parquet was made by /models/other"),
        (["f.parquet", str(CIRCLE)], (), "f.parquet holds features, and another input does not"),
        ([str(CIRCLE), "f.parquet"], (), "f.parquet holds features, and another input does not"),
        (["qformer.parquet"], (), "holds qformer features"),
        (["texts.parquet"], (), "holds features of texts"),
    ],
)
def test_features_that_cannot_be_compared_are_refused(
    typed: Run, features: Path, names: list[str], more: tuple[object, ...], said: str
) -> None:
    ran = typed("classify", *(features / name for name in names), *SHAPES, *more)
    assert ran.code == 2 and said in ran.err and "Traceback" not in ran.err
    assert len([line for line in ran.err.splitlines() if "they are read" not in line]) == 2


def test_features_of_another_shape_are_errors_of_their_rows(typed: Run, features: Path) -> None:
    names = ("short.parquet", "f.parquet")
    ran = typed("classify", *(features / name for name in names), *SHAPES, "--dtype", "fp32", "--quiet")
    assert ran.code == 3, ran.err
    assert [row["label"] for row in ran.rows] == [None] * 3 + ["a circle", "a triangle", None]
    assert ran.rows[0]["error"] == "unsupported: features of the shape [2, 64], the model has [8, 64]"


def test_in_python_features_of_another_model_are_refused(model: Blip2, features: Path) -> None:
    with pytest.raises(UsageError, match="was made by tiny, not by"):
        model.classify(str(features / "f.parquet"), CLASSES)


def test_an_output_is_gone_on_with_and_updated(typed: Run, photos: Path) -> None:
    Path("c.txt").write_text("a circle\na triangle\n")
    words = ("classify", photos, "--classes", "c.txt", "--out", "o.csv")
    assert typed(*words, "--limit", 5).code == 0
    assert typed(*words, "--resume").code == 0
    whole = Path("o.csv").read_text()
    assert len(whole.splitlines()) == 13
    Path("c.txt").write_text("a circle\na square\n")
    refused = typed(*words, "--resume")
    assert refused.code == 2 and "classes" in refused.err and Path("o.csv").read_text() == whole
    Path("c.txt").write_text("a circle\na triangle\n")
    refused = typed(*words, "--resume", "--temperature", 0.5)
    assert refused.code == 2 and "temperature was 0.07, is 0.5" in refused.err


REFUSED: list[tuple[tuple[object, ...], str]] = [
    ((), "no classes are given"),
    (("--class", "a"), "there is only one class, 'a'"),
    (("--class", "a", "--class", " a"), "class 'a' is given twice"),
    (("--class", "a", "--class", "A"), "classes 'a' and 'A' are the same text to the model"),
    (("--class", "a", "--class", " "), "--class is empty"),
    (("--class", "a", "--class", "b " * 40), "text-too-long: 42 tokens, 32 fit"),
    (("--classes", "empty.csv"), "column class is empty in row 2"),
    (("--classes", "twice.csv"), "class 'x' is given twice"),
    (("--classes", "twice.csv", "--class-column", "y"), "twice.csv has no column y"),
    (("--classes", "none.csv"), "no such file: --classes none.csv"),
    (("--classes", "cat,dog"), "no such file: --classes cat,dog"),
    (("--class", "cat,dog"), "Give each class by itself: --class cat --class dog"),
    (("--classes", "c.json"), "is neither a text file nor a table"),
    (("--class-column", "x", "--class", "a"), "--class-column needs --classes"),
    ((*SHAPES, "--template", "x"), "--template 'x' does not contain {}"),
    ((*SHAPES, "--template", "a {x} {}"), "names the column x"),
    ((*SHAPES, "--template", "{"), "Single '{'"),
    ((*SHAPES, "--template", "x {}", "--template", "x {}"), "is given twice"),
    ((*SHAPES, "--top", 4), "--top 4 is more than the 3 classes"),
    ((*SHAPES, "--top", 3, "--rerank", 2), "--top 3 is more than --rerank 2"),
    ((*SHAPES, "--format", "sidecar", "--out", "o"), "sidecar"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_cannot_be_classified_is_said_in_two_lines(typed: Run, words: tuple[object, ...], said: str) -> None:
    Path("empty.csv").write_text("class,n\nx,1\n,2\n")
    Path("twice.csv").write_text("class\nx\nx\n")
    Path("c.json").write_text("[]")
    ran = typed("classify", CIRCLE, *words)
    assert ran.code == 2 and said in ran.err, ran.err
    assert len(ran.err.splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("c.jsonl", b'{"class": true}\n{"class": "a"}\n', "column class holds true or false, not a text"),
        ("c.jsonl", b'{"class": "a"}\n{"class": ["b"]}\n', "column class holds a list, not a text"),
        ("c.jsonl", b'{"class": "a"}\n{"class": "th\xe9"}\n', "line 2 is not UTF-8"),
        ("c.csv", b"class\na\nth\xe9\n", "it is not UTF-8: line 3 has the byte 0xe9"),
        ("c.txt", b"a\nth\xe9\n", "it is not UTF-8: line 2 has the byte 0xe9"),
    ],
)
def test_class_files_of_something_else_than_texts_are_refused(typed: Run, name: str, data: bytes, said: str) -> None:
    Path(name).write_bytes(data)
    ran = typed("classify", CIRCLE, "--classes", name)
    assert ran.code == 2 and f"cannot read --classes {name}: {said}" in ran.err and ran.err.count("\n") == 2
    assert "--encoding" not in ran.err, "which is of the input"


def test_a_checkpoint_that_writes_is_refused(typed: Run, opt_checkpoint: Path) -> None:
    ran = typed("classify", CIRCLE, *SHAPES, "-m", opt_checkpoint)
    assert ran.code == 1 and "retrieval" in ran.err and len(ran.err.splitlines()) == 2


def test_in_python_an_image_has_its_classes() -> None:
    (row,) = Blip2("tiny", workers=0).classify(Image.open(CIRCLE), ["a circle", "{a} triangle"], top=2)
    assert row["labels"] == ["a circle", "{a} triangle"]
