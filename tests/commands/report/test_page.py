"""What a report holds, whatever the results' format, and what it leaves out."""

import json
import os
import shutil
import time
from base64 import b64decode
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from blip2cli.commands.report import ReportSettings
from blip2cli.commands.report.page import digest, embedded, packed
from blip2cli.commands.report.table import MOST_COLUMNS, MOST_LETTERS, table_of
from blip2cli.commands.report.thumbnails import album_of
from blip2cli.records import Row
from tests.commands.report.conftest import Elements, column, data_of, thumbnails_of
from tests.conftest import Typed

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
CIRCLE = EXAMPLES / "red-circle.png"
PAGE = Path("gallery.html")
Run = Callable[..., Typed]
LINE = "\u2028"


def results(name: str, *rows: dict) -> str:
    """A JSON-lines file."""
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def reported(typed: Run, *words: object) -> dict:
    """The data of the page of a report that went well."""
    ran = typed("report", *words, "--overwrite")
    assert ran.code == 0, ran.err
    return data_of(PAGE)


@pytest.mark.parametrize("out", ["o.jsonl", "o.parquet", "o.csv", "o.arrow", "shards"])
def test_the_page_is_the_same_for_every_format(typed: Run, out: str) -> None:
    shutil.copytree(EXAMPLES, "photos")
    Path("photos/bad.png").write_text("junk")
    words = ("photos", "-p", "what shape is red?", "-p", "how many shapes are there?", "--scores", "--out", out)
    assert typed("vqa", *words, *(("--shard-size", 7) if out == "shards" else ())).code == 3
    ran = typed("report", out)
    assert ran.code == 0
    assert ran.err.startswith("gallery.html: 26 rows, 2 with errors, 24 with thumbnails, 0.1 MB")
    data = data_of(PAGE)
    assert data["names"][:2] == ["photos/bad.png", "photos/blue-circle.png"] and data["cards"][:3] == [0, 0, 1]
    assert data["errors"] == dict.fromkeys("01", "unsupported: not an image in a known format")
    assert {field["name"]: field["kind"] for field in data["fields"]} == {
        "question": "text", "answer": "text", "logprob": "number", "probability": "number",
    }  # fmt: skip
    assert column(PAGE, "question")[:2] == ["what shape is red?", "how many shapes are there?"]
    assert column(PAGE, "answer")[:4] == [None, None, "circle", "1"]
    assert column(PAGE, "logprob")[0] is None and -0.1 < column(PAGE, "logprob")[2] < 0
    assert len(thumbnails_of(PAGE)) == 12 and data["places"] == [-1, *range(12)]
    told = " ".join(Elements(PAGE).all("dd", dir="auto"))
    assert "tiny" in told and "what shape is red?\nhow many shapes are there?" in told, "the run's settings"


def test_columns_of_other_commands_are_texts_and_scores(typed: Run) -> None:
    rows = [{"image": str(CIRCLE), "text": f"text {n}", "itc": n / 10, "itm": 0.5, "rank": n, "id": 7} for n in (1, 2)]
    data = reported(typed, results("match.jsonl", *rows))
    named = [field["name"] for field in data["fields"]]
    assert [named[at] for at in data["answers"]] == ["text"] and data["question"] is None
    assert [named[at] for at in data["numbers"]] == ["rank", "itm", "itc", "id"]


def test_lists_tensors_and_values_of_any_kind_are_shown(typed: Run) -> None:
    rows = [
        {"image": "a.jpg", "captions": ["a", "b"], "logprobs": [-1, -2.5], "features": [0.5] * 100, "big": 2**60},
        {"image": "b.jpg", "captions": ["c"], "nested": {"x": [1]}, "flag": True, "mixed": 3},
        {"image": "c.jpg", "captions": None, "flag": None, "mixed": "three"},
    ]
    reported(typed, results("o.jsonl", *rows))
    assert column(PAGE, "captions") == [["a", "b"], ["c"], None]
    assert column(PAGE, "logprobs") == [["-1", "-2.5"], None, None]
    assert column(PAGE, "features") == ["100 numbers", None, None]
    assert column(PAGE, "big") == [str(2**60), None, None]
    assert column(PAGE, "nested")[1] == '{"x": [1]}' and column(PAGE, "flag")[1] == "true"
    assert column(PAGE, "mixed") == [None, "3", "three"]
    typed("embed", CIRCLE, "--out", "f.parquet")
    reported(typed, "f.parquet")
    assert column(PAGE, "features") == ["8 × 128 float32"]


def test_answers_that_are_numbers_stay_text_and_csv_has_numbers_and_lists(typed: Run) -> None:
    Path("o.csv").write_text('image,answer,score,code,captions\na.jpg,2,0.5,007,"[""x"", ""y""]"\nb.jpg,3,,008,\n')
    reported(typed, "o.csv")
    assert column(PAGE, "answer") == ["2", "3"] and column(PAGE, "score") == [0.5, None]
    assert column(PAGE, "code") == ["007", "008"] and column(PAGE, "captions")[0] == ["x", "y"]


def test_what_is_no_number_in_json_is_left_out_and_long_cells_are_cut() -> None:
    rows = [Row(0, "a", columns={"score": float("nan"), "answer": "x" * 10_000}), Row(1, "b", columns={"score": 1.5})]
    table = table_of(rows, 10)
    assert {one.name: one.values for one in table.fields}["score"] == [None, 1.5]
    assert len({one.name: one.values for one in table.fields}["answer"][0]) == MOST_LETTERS  # type: ignore[arg-type]


def test_lines_that_cannot_be_read_are_rows_with_errors(typed: Run) -> None:
    Path("o.jsonl").write_text(f'{{"image": "{CIRCLE}", "caption": "a red circle", "error": null}}\n{{"image": "to\n')
    data = reported(typed, "o.jsonl")
    assert data["names"][1] == "o.jsonl#1" and data["errors"] == {"1": "unreadable: line 2 is not a JSON object"}


def test_rows_of_several_files_say_which_they_are_from(typed: Run) -> None:
    names = [results(f"{who}.jsonl", {"image": str(CIRCLE), "caption": who}) for who in ("one", "two")]
    Path("broken.jsonl").write_text(f'{{"image": "{CIRCLE}", "caption": "x"}}\n{{"image": "to\n')
    data = reported(typed, *names, "broken.jsonl")
    assert column(PAGE, "results file") == ["one.jsonl", "two.jsonl", "broken.jsonl", "broken.jsonl"]
    assert data["cards"] == [0, 0, 0, 1] and data["names"] == [str(CIRCLE), "broken.jsonl#1"], "an image is one card"
    assert data["errors"] == {"3": "unreadable: line 2 is not a JSON object"}
    reported(typed, names[0])
    assert [field["name"] for field in data_of(PAGE)["fields"]] == ["caption"]


def test_what_a_search_found_is_a_card_each(typed: Run) -> None:
    rows = [{"image": "a.png", "query": query, "rank": 1, "itc": 0.5} for query in ("a dog", "a cat")]
    assert reported(typed, results("s.jsonl", *rows))["names"] == ["a.png", "a.png"]


def test_columns_of_answers_have_their_scores_beside_them(typed: Run) -> None:
    row = {"image": "a.png", "id": 3, "note": "x", "people": "2", "people_probability": 0.5, "sky": "blue"}
    data = reported(typed, results("w.jsonl", {**row, "sky_probability": 0.75}))
    named = [field["name"] for field in data["fields"]]
    assert [named[at] for at in data["answers"]] == ["people", "sky"]
    assert [[named[at] for at in some] for some in data["scores"]] == [["people_probability"], ["sky_probability"]]
    data = reported(typed, results("w.jsonl", {name: row[name] for name in ("image", "id", "people", "sky")}))
    named = [field["name"] for field in data["fields"]]
    assert [named[at] for at in data["answers"]] == ["people", "sky"], "text, though it may be a number"
    assert data["scores"] == [[], []]


def test_columns_and_their_names_are_bounded() -> None:
    rows = [Row(n, f"{n}.jpg", columns={f"{n} {'x' * 5000}": n, "same": "s"}) for n in range(300)]
    table = table_of(rows, 1000)
    assert len(table.fields) == MOST_COLUMNS and table.columns_left_out
    assert len(packed(table.fields[0])["name"]) == MOST_LETTERS


# ---- pictures ----


def test_full_pictures_are_linked_relative_to_the_page(typed: Run) -> None:
    Path("photos").mkdir()
    for name in ("a.png", "b?c#d%20.png", "javascript:alert(1).png", "data:x,.png"):
        shutil.copy(CIRCLE, Path("photos", name))
    typed("caption", "photos", "--out", "o.jsonl")
    assert reported(typed, "o.jsonl")["links"] == [
        "./photos/a.png", "./photos/b%3Fc%23d%2520.png", "./photos/data%3Ax%2C.png",
        "./photos/javascript%3Aalert%281%29.png",
    ]  # fmt: skip
    assert typed("report", "o.jsonl", "--out", "photos/page.html", "--thumbnails-mb", 0).code == 0
    assert data_of(Path("photos/page.html"))["links"][0] == "./a.png", "with and without a thumbnail"
    shutil.rmtree("photos")
    assert reported(typed, "o.jsonl")["links"] == [None] * 4


def test_what_is_not_an_image_file_is_never_linked(typed: Run) -> None:
    Path("secret.txt").write_text("secret")
    pq.write_table(pa.table({"image": [CIRCLE.read_bytes()]}), "t.parquet")
    images = ("secret.txt", "http://127.0.0.1:9/a.png", "javascript:alert(1)", "file:///etc/passwd", "//host/a.png")
    rows = [{"image": image, "caption": "x"} for image in (*images, "t.parquet#0")]
    for limit in ((), ("--thumbnails-mb", 0)):
        assert reported(typed, results("o.jsonl", *rows), *limit)["links"] == [None] * len(rows)


def test_images_are_found_from_here_beside_the_results_and_below_the_root(typed: Run) -> None:
    Path("runs/pics").mkdir(parents=True)
    for place in ("here.png", "runs/beside.png", "runs/pics/rooted.png"):
        shutil.copy(CIRCLE, place)
    name = results("runs/o.jsonl", *({"image": f"{one}.png", "caption": one} for one in ("here", "beside", "rooted")))
    assert reported(typed, name)["places"] == [0, 1, -1]
    assert reported(typed, name)["faults"] == {"2": "missing: no such file"}
    assert reported(typed, name, "--image-root", "runs/pics")["places"] == [-1, -1, 0]
    assert typed("report", name, "--image-root", "gone", "--overwrite").code == 2


def test_images_are_found_whatever_bytes_their_names_have(typed: Run) -> None:
    Path("photos").mkdir()
    for name in (b"\xff\xfe.png", b"new\nline.png", b"back\\slash.png", b"a#1.png", b"<b>.png"):
        Path("photos", os.fsdecode(name)).write_bytes(CIRCLE.read_bytes() + name)
    typed("caption", "photos", "--out", "o.jsonl")
    assert sorted(reported(typed, "o.jsonl")["places"]) == [0, 1, 2, 3, 4]


def test_images_within_manifests_and_archives_are_found_by_their_rows_names(typed: Run) -> None:
    data = [path.read_bytes() for path in sorted(EXAMPLES.glob("*.png"))]
    pq.write_table(pa.table({"image": pa.array(data, pa.binary())}), "bytes.parquet")
    shutil.make_archive("shapes", "zip", EXAMPLES / "scenes")
    shutil.make_archive("shapes", "tar", EXAMPLES / "scenes")
    assert typed("caption", "bytes.parquet", "shapes.zip", "shapes.tar", "--out", "o.jsonl").code == 0
    shown = reported(typed, "o.jsonl")
    assert len(shown["names"]) == 18 and shown["names"][0] == "bytes.parquet#0"
    assert sorted(shown["places"]) == list(range(18))
    Path("bytes.parquet").unlink()
    assert set(reported(typed, "o.jsonl")["faults"].values()) == {"missing: no such file"}


def test_images_are_taken_from_the_runs_input_where_it_is_named(typed: Run) -> None:
    struct = [{"path": f"elsewhere/{n}.png", "bytes": CIRCLE.read_bytes()} for n in range(3)]
    pq.write_table(pa.table({"image": struct}), "hf.parquet")
    typed("caption", "hf.parquet", "--out", "o.jsonl")
    assert reported(typed, "o.jsonl")["places"] == [-1, -1, -1]
    assert reported(typed, "o.jsonl", "--images", "hf.parquet")["places"] == [0, 0, 0]
    ran = typed("report", "o.jsonl", "--images", "gone.parquet", "--overwrite")
    assert ran.code == 2 and ran.err.startswith("blip2: no such input: gone.parquet\n")


def test_images_are_looked_for_by_their_names_where_a_named_input_has_none_of_them(typed: Run) -> None:
    pq.write_table(pa.table({"image": [{"path": "elsewhere/0.png", "bytes": CIRCLE.read_bytes()}]}), "hf.parquet")
    shutil.make_archive("shapes", "zip", EXAMPLES / "scenes")
    typed("caption", "hf.parquet", "shapes.zip", CIRCLE, "--out", "o.jsonl")
    data = reported(typed, "o.jsonl", "--images", "hf.parquet")
    assert data["faults"] == {} and min(data["places"]) == 0
    Path("shapes.zip").write_bytes(b"junk")
    faults = reported(typed, "o.jsonl", "--images", "hf.parquet")["faults"]
    assert list(faults) == list(map(str, range(1, len(data["places"]) - 1)))
    assert set(faults.values()) == {"unreadable: cannot read shapes.zip: File is not a zip file"}


def test_images_are_taken_from_the_column_that_the_run_took_them_from(typed: Run) -> None:
    pq.write_table(pa.table({"pixels": [CIRCLE.read_bytes()]}), "bytes.parquet")
    for out in ("o.parquet", "o.jsonl"):
        typed("caption", "bytes.parquet", "--image-column", "pixels", "--out", out)
        assert reported(typed, out)["places"] == [0]


def test_no_page_takes_the_place_of_an_image(typed: Run) -> None:
    pq.write_table(pa.table({"image": [CIRCLE.read_bytes()]}), "bytes.parquet")
    typed("caption", "bytes.parquet", "--out", "o.jsonl")
    for images in ("bytes.parquet", "*.parquet"):
        ran = typed("report", "o.jsonl", "--images", images, "--out", "bytes.parquet", "--overwrite")
        assert ran.code == 2 and ran.err.startswith("blip2: bytes.parquet is an input")


def test_images_that_stand_in_the_results_are_shown(typed: Run) -> None:
    pq.write_table(pa.table({"image": [CIRCLE.read_bytes(), b"junk"], "caption": ["a", "b"]}), "o.parquet")
    data = reported(typed, "o.parquet")
    assert data["places"] == [0, -1] and data["faults"] == {"1": "unsupported: not an image in a known format"}


def test_urls_are_fetched_only_if_asked(typed: Run) -> None:
    name = results("o.jsonl", {"image": "http://127.0.0.1:9/a.png", "caption": "a"})
    assert reported(typed, name)["faults"] == {"0": "unsupported: a URL in a manifest; --allow-remote fetches it"}
    fault = reported(typed, name, "--allow-remote")["faults"]["0"]
    assert fault.startswith("unreadable: ") and "127.0.0.1" in fault, "no address of a private network"
    assert typed("report", name, "--allow-private", "--overwrite").code == 2


def test_bad_images_among_many_cost_their_own_thumbnails_only(typed: Run) -> None:
    for number in range(24):
        Path(f"{number:02}.png").write_bytes(CIRCLE.read_bytes() + bytes([number]) if number % 5 else b"junk")
    data = reported(typed, results("o.jsonl", *({"image": f"{n:02}.png", "caption": "x"} for n in range(24))))
    assert [at for at, place in enumerate(data["places"]) if place < 0] == [0, 5, 10, 15, 20]
    assert len(thumbnails_of(PAGE)) == 19


def test_thumbnails_have_the_side_that_is_asked_for(typed: Run) -> None:
    Image.new("RGB", (1000, 500)).save("wide.jpg")
    name = results("o.jsonl", {"image": "wide.jpg", "caption": "x"})
    for words, size in (((), (320, 160)), (("--thumbnail", 64), (64, 32))):
        reported(typed, name, *words)
        with Image.open(BytesIO(b64decode(thumbnails_of(PAGE)[0]))) as thumbnail:
            assert thumbnail.size == size and thumbnail.format == "WEBP"
    assert reported(typed, name, "--thumbnail", 0)["places"] == [-1] and thumbnails_of(PAGE) == []


NAMES = (
    "",
    None,
    7,
    "\0",
    "a" * 5000,
    "http://[",
    "s3://",
    "gone.parquet#1",
    "folder.zip/a.png",
    "..",
    "#3",
    "~",
    "\ud83d",
    {},
)


def test_names_of_any_kind_are_rows_without_pictures(typed: Run) -> None:
    Path("folder.zip").mkdir()
    Path("broken.parquet").write_text("junk")
    names = (*NAMES, "broken.parquet#0")
    data = reported(typed, results("o.jsonl", *({"image": name, "caption": "x"} for name in names)))
    assert data["places"] == [-1] * len(names) and len(data["faults"]) == len(names)
    assert column(PAGE, "caption") == ["x"] * len(names)


# ---- results from strangers ----


@pytest.fixture
def rooted(typed: Run) -> Run:
    """A folder of images, and things outside of it that results may try to name."""
    Path("root").mkdir()
    Path("secret").mkdir()
    shutil.copy(CIRCLE, "root/mine.png")
    shutil.copy(CIRCLE, "secret/s.png")
    pq.write_table(pa.table({"image": [CIRCLE.read_bytes()]}), "secret/t.parquet")
    pq.write_table(pa.table({"image": [CIRCLE.read_bytes()]}), "root/t.parquet")
    for kind in ("tar", "zip"):
        shutil.make_archive("secret/s", kind, "secret", "s.png")
        shutil.make_archive("root/r", kind, "root", "mine.png")
    results("root/names.jsonl", {"image": "../secret/s.png"}, {"image": str(Path("secret/s.png").resolve())})
    for name in ("s.png", "s.tar", "s.zip", "t.parquet"):
        Path("root", f"link-{name}").symlink_to(f"../secret/{name}")
    Path("root/folder").symlink_to("../secret")
    return typed


OUTSIDE = (
    "../secret/s.png", "secret/../../secret/s.png", "link-s.png", "folder/s.png", "../secret/s.tar/s.png",
    "../secret/s.zip/s.png", "../secret/t.parquet#0", "link-s.tar/s.png", "link-s.zip/s.png", "link-t.parquet#0",
    "folder/s.tar/s.png", "folder/s.zip/s.png", "folder/t.parquet#0", "names.jsonl#0",
)  # fmt: skip
INSIDE = ("mine.png", "./mine.png", "../root/mine.png", "r.tar/mine.png", "r.zip/mine.png", "t.parquet#0")


def test_below_an_image_root_nothing_else_is_shown(rooted: Run) -> None:
    absolute = [str(Path("secret", name).resolve()) for name in ("s.png", "s.tar/s.png", "s.zip/s.png", "t.parquet#0")]
    names = [*INSIDE, *OUTSIDE, *absolute, str(Path("root/mine.png").resolve())]
    name = results("o.jsonl", *({"image": name, "caption": "x"} for name in names))
    data = reported(rooted, name, "--image-root", "root")
    assert {link for link in data["links"] if link} == {"./root/mine.png"}
    bare = reported(rooted, name, "--image-root", "root", "--thumbnails-mb", 0)
    assert {link for link in bare["links"] if link} == {"./root/mine.png"}, "though no thumbnail was made"
    data = reported(rooted, name, "--image-root", "root")
    shown = {name for name, place in zip(names, data["places"], strict=True) if place >= 0}
    assert shown == {*INSIDE, names[-1]}
    assert all(
        fault == "unreadable: outside the image root" or fault.startswith("missing: ")
        for fault in data["faults"].values()
    )


def test_names_in_a_table_below_the_root_lead_nowhere_else(rooted: Run) -> None:
    for name in ("../secret/s.png", "link-s.png"):
        results("root/names.jsonl", {"image": name})
        data = reported(rooted, "root/names.jsonl", "--image-root", "root")
        assert data["faults"] == {"0": "unreadable: outside the image root"}


def test_what_the_user_names_is_read_wherever_it_lies(rooted: Run) -> None:
    name = results("o.jsonl", {"image": "secret/s.png", "caption": "x"})
    assert reported(rooted, name, "--image-root", "root")["places"] == [-1]
    assert reported(rooted, name, "--image-root", "root", "--images", "secret")["places"] == [0]
    rooted("caption", "secret/s.png", "--format", "webdataset", "--out", "packed")
    assert reported(rooted, "packed", "--image-root", "root")["places"] == [0], "its bytes stand in the results"


def test_a_root_behind_a_url_is_not_left(rooted: Run) -> None:
    names = ("../secret.png", str(Path("secret/s.png").resolve()), "%2e%2e/secret.png")
    name = results("o.jsonl", *({"image": name, "caption": "x"} for name in names))
    faults = reported(rooted, name, "--image-root", "http://127.0.0.1:9/photos")["faults"]
    assert set(faults.values()) == {"unreadable: outside the image root"}


# ---- bounds ----


def test_what_has_no_room_is_left_out_and_said(typed: Run) -> None:
    typed("caption", EXAMPLES, "--out", "o.jsonl")
    ran = typed("report", "o.jsonl", "--limit", 9, "--thumbnails-mb", 0.01)
    shown = len(thumbnails_of(PAGE))
    assert 0 < shown < 9 and sum(map(len, thumbnails_of(PAGE))) <= 10_000
    rows = "The first 9 of 12 rows are shown (--limit 9)."
    bare = f"{9 - shown} images are shown without thumbnails, because the limit was reached (--thumbnails-mb 0.01)."
    assert ran.err.splitlines()[1:] == [f"  {rows}", f"  {bare}"]
    assert Elements(PAGE).all("p", **{"class": "note"})[-2:] == [rows, bare]
    assert data_of(PAGE)["places"] == [*range(shown), *[-1] * (9 - shown)]


def test_a_page_that_is_there_is_replaced_only_if_asked(typed: Run) -> None:
    name = results("o.jsonl", {"image": str(CIRCLE), "caption": "a red circle"})
    PAGE.write_text("mine")
    ran = typed("report", name)
    assert ran.code == 2 and PAGE.read_text() == "mine"
    assert ran.err == "blip2: gallery.html exists\n       Use --overwrite to replace it, or choose another name.\n"
    assert typed("report", name, "--overwrite", "--quiet").err == ""
    assert column(PAGE, "caption") == ["a red circle"]
    assert typed("report", name, "--out", ".").code == 2 and typed("report", name, "--out", "no/x.html").code == 2
    assert sorted(path.name for path in Path().iterdir()) == ["gallery.html", "o.jsonl"]


def test_results_that_are_not_there_or_not_finished_are_told(typed: Run) -> None:
    Path(".o.parquet.blip2-parts").mkdir()
    assert typed("report", "o.parquet").err.startswith("blip2: o.parquet is not finished\n")
    PAGE.write_text("mine")
    assert typed("report", "gone.jsonl").err.startswith("blip2: no such input: gone.jsonl\n")
    PAGE.unlink()
    assert typed("report", "gone.jsonl").code == 2 and typed("report", "-").code == 2
    pq.write_table(pa.table({"image": pa.array([], pa.string())}), "none.parquet")
    assert typed("report", "none.parquet", "--out", "none.html").err.startswith("none.html: 0 rows, ")
    assert "has no image column" in typed("report", results("o.jsonl", {"x": 1})).err
    assert not PAGE.exists()


# ---- safety ----


def test_data_cannot_leave_their_script_element() -> None:
    value = {"</script><!--": ["<script>", "\u2028\u2029", "\x00\ud83d", "&amp;"]}
    text = embedded(value)
    assert not {"<", "\u2028", "\u2029"} & set(text)
    assert json.loads(text) == value


def test_the_page_has_its_own_scripts_and_styles_only_and_a_policy_that_says_so(typed: Run) -> None:
    evil = f"</script><script>alert(1)</script><style>{LINE}"
    reported(typed, results("o.jsonl", {"image": f"{evil}.png", "caption": evil, evil: evil, "error": evil}))
    page = Elements(PAGE)
    (script,) = [
        text for (tag, given), text in zip(page.started, page.texts, strict=True) if (tag, given) == ("script", {})
    ]
    (style,) = page.all("style")
    assert len(page.all("script")) == 2
    assert not any(name in given for _, given in page.started for name in ("style", "onclick", "onerror", "onload"))
    (policy,) = (given["content"] or "" for _, given in page.started if given.get("http-equiv"))
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data: file:"
    assert rules["script-src"] == digest(script) and rules["style-src"] == digest(style)
    assert "http://" not in script.replace("http://www.w3.org/2000/svg", "") and "https://" not in script + style


def test_numbers_that_javascript_has_no_room_for_are_shown(typed: Run) -> None:
    Path("o.csv").write_text("image,caption,size,error\na.png,a,1e999,\nb.png,b,2,\n")
    reported(typed, "o.csv")
    assert column(PAGE, "size") == ["1e999", "2"]
    huge = 10**400
    name = results("o.jsonl", {"image": "a.png", "caption": "a", "n": huge, "error": None})
    reported(typed, name)
    assert column(PAGE, "n") == [str(huge)]


def test_rows_whose_images_are_gone_take_time_by_their_number_only() -> None:
    def seconds(rows: int) -> float:
        table = table_of((Row(at, f"{at}.png", None, {"caption": "a"}) for at in range(rows)), rows)
        started = time.process_time()
        album = album_of(table.pictures, table, ReportSettings(quiet=True, thumbnails_mb=float("inf")))
        assert len(album.faults) == rows
        return time.process_time() - started

    few, many = (min(seconds(rows) for _ in range(3)) for rows in (2_000, 20_000))
    assert many < 40 * few, "ten times the rows take about ten times as long, and not a hundred times"
