"""Annotation JSON of COCO, VQAv2 and GQA, and lists of objects: rows, names, and what is carried."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from blip2cli.errors import Blip2Error, UsageError
from blip2cli.inputs import ColumnChoice, Sources, open_source
from blip2cli.records import ImageRef, Row
from tests.conftest import Typed, rows_of

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

IMAGE = {
    "license": 4,
    "file_name": "000000397133.jpg",
    "coco_url": "http://images.cocodataset.org/val2017/000000397133.jpg",
    "height": 427,
    "width": 640,
    "date_captured": "2013-11-14 17:02:52",
    "flickr_url": "http://farm7.staticflickr.com/6116/6255196340_da26cf2c9e_z.jpg",
    "id": 397133,
}
"""An image as it stands in captions_val2017.json."""

QUESTION = {"image_id": 262148, "question": "Where is he looking?", "question_id": 262148000}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def source(value: Any, **columns: Any) -> Sources:
    """The source of a JSON file with that value."""
    Path("m.json").write_text(json.dumps(value))
    return open_source(["m.json"], ColumnChoice(**columns))


def rows(value: Any, **columns: Any) -> list[Row]:
    """The rows of it; what is read from any place on must be the rest of them."""
    opened = source(value, **columns)
    found = list(opened.rows())
    assert opened.count() == len(found)
    for start in range(1, len(found) + 1):
        assert list(opened.rows(start, found[start - 1].name)) == found[start:]
    assert all(set(row.columns) <= set(opened.column_names()) for row in found)
    assert opened.schema().names == opened.column_names()
    return found


def plain(row: Row) -> tuple[str, dict[str, Any], str | None]:
    return row.name, dict(row.columns), row.error and str(row.error)


# COCO


def test_a_row_an_image_with_its_captions_in_the_order_of_the_images() -> None:
    second = {**IMAGE, "id": 2, "file_name": "2.jpg", "domain": "near"}
    annotations = [
        {"id": at, "image_id": of, "caption": text} for at, of, text in [(1, 2, "b"), (2, 9, "x"), (3, 2, "a")]
    ]
    found = rows({"info": {}, "images": [IMAGE, second], "annotations": annotations, "licenses": []})
    own = {"coco_url": IMAGE["coco_url"], "height": 427, "width": 640}
    assert [plain(row) for row in found] == [
        ("000000397133.jpg", {"image_id": 397133, **own, "domain": None, "captions": []}, None),
        ("2.jpg", {"image_id": 2, **own, "domain": "near", "captions": ["b", "a"]}, None),
    ]
    assert found[0].image == ImageRef(path="000000397133.jpg")
    assert [row.columns["captions"] for row in rows({"images": [second], "annotations": annotations})] == [["b", "a"]]


def test_boxes_are_not_carried_and_a_file_without_annotations_is_read() -> None:
    boxes = [{"id": 1, "image_id": 397133, "category_id": 18, "bbox": [1, 2, 3, 4]}]
    for annotated in ({"annotations": boxes, "categories": []}, {"annotations": []}, {}):
        (row,) = rows({"images": [IMAGE], **annotated})
        assert list(row.columns) == ["image_id", "coco_url", "height", "width"]


def test_images_that_are_not_as_they_must_be() -> None:
    found = rows({"images": [IMAGE, 5, {"id": 7}, {"file_name": 8, "id": [9]}]})
    assert [plain(row)[::2] for row in found] == [
        ("000000397133.jpg", None),
        ("m.json#1", "unreadable: entry 2 is not a JSON object"),
        ("m.json#2", "missing: column file_name is empty"),
        ("m.json#3", "unsupported: column file_name holds int"),
    ]
    with pytest.raises(UsageError, match=r"m\.json has no image column"):
        source({"images": [{"id": 1}]})
    (row,) = rows({"images": [IMAGE]}, image="coco_url", allow_remote=True)
    assert row.image == ImageRef(url=IMAGE["coco_url"])


def test_what_pycocotools_reads_is_read_here(capsys: pytest.CaptureFixture[str]) -> None:
    images = [{**IMAGE, "id": number, "file_name": f"{number}.jpg"} for number in (3, 1, 2)]
    annotations = [{"id": at, "image_id": 1 + at % 3, "caption": f"caption {at}"} for at in range(9)]
    found = rows({"images": images, "annotations": annotations})
    theirs = COCO("m.json")
    for row in found:
        number = row.columns["image_id"]
        assert row.name == theirs.loadImgs(number)[0]["file_name"]
        assert row.columns["captions"] == [entry["caption"] for entry in theirs.imgToAnns[number]]


def test_a_caption_file_is_captioned(typed: Callable[..., Typed]) -> None:
    images = [{**IMAGE, "id": 7, "file_name": "red-circle.png"}, {**IMAGE, "id": 8, "file_name": "none.png"}]
    captions = [{"id": 1, "image_id": 7, "caption": "A circle."}]
    Path("annotations").mkdir()
    Path("annotations/captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    arguments = ("caption", "annotations/captions.json", "--image-root", EXAMPLES)
    assert typed(*arguments, "--out", "o.jsonl").code == 3
    first, second = rows_of(Path("o.jsonl").read_text())
    assert (first["image"], first["caption"], first["captions"]) == ("red-circle.png", "a red circle", ["A circle."])
    assert (second["image_id"], second["captions"], second["error"]) == (8, [], "missing: no such file")
    assert typed(*arguments, "--out", "o.parquet").code == 3
    schema = pq.read_schema("o.parquet")
    assert schema.field("image_id").type == pa.int64()
    assert schema.field("captions").type == pa.list_(pa.string())


# Questions


@pytest.mark.parametrize(
    ("subtype", "name"),
    [
        ("val2014", "COCO_val2014_000000262148.jpg"),
        ("test2015", "COCO_test2015_000000262148.jpg"),
        ("test-dev2015", "COCO_test2015_000000262148.jpg"),
        (None, "000000262148.jpg"),
    ],
)
def test_a_row_a_question_about_an_image_of_coco(subtype: str | None, name: str) -> None:
    choices = {"multiple_choices": ["down", "up"]}
    value = {"questions": [QUESTION, {**QUESTION, "question_id": 2, **choices}], "data_subtype": subtype}
    first, second = rows(value, text="question", text_required=True)
    assert plain(first) == (name, {"question_id": 262148000, "image_id": 262148, "multiple_choices": None}, None)
    assert (first.text, first.image) == ("Where is he looking?", ImageRef(path=name))
    assert second.columns["multiple_choices"] == ["down", "up"]
    assert "question" in rows(value)[0].columns, "a column where it is not asked"


def test_images_are_named_as_in_2017_where_the_first_one_is() -> None:
    value = {"questions": [{}, QUESTION], "data_subtype": "val2014"}
    Path("imgs").mkdir()
    Path("imgs/000000262148.jpg").touch()
    assert [row.name for row in rows(value, root="imgs")] == ["m.json#0", "000000262148.jpg"]
    Path("imgs/COCO_val2014_000000262148.jpg").touch()
    assert [row.name for row in rows(value, root="imgs")] == ["m.json#0", "COCO_val2014_000000262148.jpg"]
    assert [row.name for row in rows(value)] == ["m.json#0", "COCO_val2014_000000262148.jpg"]


def test_questions_that_are_not_as_they_must_be() -> None:
    ids: list[Any] = ["262148", "x", 1.5, None, "9" * 5000]
    entries = [*({**QUESTION, "image_id": number} for number in ids), "?", {"image_id": 1}]
    found = rows({"questions": entries, "data_subtype": "val2014"}, text="question")
    missing = "missing: column image is empty"
    assert [row.error and str(row.error) for row in found] == [
        *(None, missing, missing, missing, missing),
        *("unreadable: entry 6 is not a JSON object", "missing: no text in column question"),
    ]


def test_questions_that_name_their_images() -> None:
    (row,) = rows({"questions": [{"image": "VizWiz_val_0.jpg", "question": "what?"}]}, text="question")
    assert (row.name, row.text, row.columns) == ("VizWiz_val_0.jpg", "what?", {})


def test_questions_of_gqa() -> None:
    value = {
        "201307251": {"question": "Is it red?", "imageId": "2417886", "answer": "no", "types": {"semantic": "attr"}},
        "05451384": {"question": "What is it?", "imageId": "n161313"},
        "7": None,
    }
    found = rows(value, text="question")
    assert [(row.name, row.text) for row in found] == [
        ("2417886.jpg", "Is it red?"),
        ("n161313.jpg", "What is it?"),
        ("m.json#2", None),
    ]
    assert found[0].columns == {"question_id": "201307251", "image_id": "2417886", "answer": "no"}
    assert str(found[2].error) == "unreadable: entry 3 is not a JSON object"
    assert list(rows({"1": {"question": "?", "imageId": "2"}}, text="question")[0].columns) == [
        "question_id",
        "image_id",
    ]


def test_each_question_of_a_file_is_asked(typed: Callable[..., Typed]) -> None:
    Path("imgs").mkdir()
    for number, name in ((1, "red-circle.png"), (2, "blue-circle.png")):
        Path(f"imgs/COCO_val2014_{number:012d}.jpg").write_bytes((EXAMPLES / name).read_bytes())
    asked = [(2, "what shape is blue?"), (1, "is there a blue shape?"), (1, "how many shapes are there?")]
    questions = [{"image_id": of, "question": text, "question_id": 10 + at} for at, (of, text) in enumerate(asked)]
    Path("questions.json").write_text(json.dumps({"questions": questions, "data_subtype": "val2014"}))
    ran = typed("vqa", "questions.json", "--image-root", "imgs")
    assert ran.code == 0
    assert [(row["question_id"], row["question"], row["answer"]) for row in ran.rows] == [
        (10, "what shape is blue?", "circle"),
        (11, "is there a blue shape?", "no"),
        (12, "how many shapes are there?", "1"),
    ]
    refused = typed("vqa", "questions.json", "--image-root", "imgs", "--question-column", "ask")
    assert refused.code == 2 and "questions.json has no column ask" in refused.err


def test_the_answers_of_a_file_stand_beside_those_of_the_model(typed: Callable[..., Typed]) -> None:
    Path("7.jpg").write_bytes((EXAMPLES / "red-circle.png").read_bytes())
    Path("gqa.json").write_text(json.dumps({"1": {"question": "what shape is red?", "imageId": 7, "answer": "square"}}))
    (row,) = typed("vqa", "gqa.json").rows
    assert (row["input_answer"], row["answer"], row["image_id"]) == ("square", "circle", 7)


# Lists, and what is none of these


def test_a_list_of_objects_is_a_manifest() -> None:
    talk = [{"from": "human", "value": "<image>\nwhat?"}]
    found = rows([{"id": "a", "image": "a.jpg", "conversations": talk}, {"image": "b.jpg"}, 5])
    assert [plain(row) for row in found] == [
        ("a.jpg", {"id": "a", "conversations": talk}, None),
        ("b.jpg", {"id": None, "conversations": None}, None),
        ("m.json#2", {}, "unreadable: entry 3 is not a JSON object"),
    ]
    with pytest.raises(UsageError, match=r"m\.json has no column photo"):
        source([{"image": "a.jpg"}], image="photo")


def test_json_lines_under_another_name() -> None:
    Path("m.json").write_text('{"image": "a.jpg"}\n{"image": "b.jpg"}\n')
    opened = open_source(["m.json"], ColumnChoice())
    assert [row.name for row in opened.rows()] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    "value", [[], {}, 5, None, ["a.jpg"], {"image": {"0": "a.jpg"}}, {"annotations": [{"question_id": 1}]}]
)
def test_json_of_another_kind_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match=r"m\.json is not a kind of JSON that is read") as error:
        source(value)
    assert "COCO" in error.value.hint


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b'"\xff"', b"[" * 100_000])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    Path("m.json").write_bytes(data)
    with pytest.raises(UsageError, match=r"cannot read m\.json: [^\n]+$"):
        open_source(["m.json"], ColumnChoice())


ids = st.none() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3) | st.lists(st.none(), max_size=1)
words = st.sampled_from(("id", "image_id", "imageId", "file_name", "image", "question", "caption", "captions", "url"))
entries = st.lists(st.dictionaries(words, ids, max_size=6) | ids, max_size=5)
values = (
    entries
    | st.fixed_dictionaries({"images": entries, "annotations": entries | ids})
    | st.fixed_dictionaries({"questions": entries, "data_subtype": ids})
    | st.dictionaries(st.text(max_size=2), st.dictionaries(words, ids, max_size=6), max_size=4)
)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=values, text=st.sampled_from((None, "question")), allow_remote=st.booleans())
def test_json_of_any_content_gives_rows_or_two_lines(value: Any, text: str | None, allow_remote: bool) -> None:
    try:
        found = rows(value, text=text, allow_remote=allow_remote)
    except Blip2Error as error:
        assert error.message and "\n" not in error.message + error.hint
    else:
        assert all(row.error or row.image for row in found)
