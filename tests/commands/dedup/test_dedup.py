"""`blip2 dedup`: from images or features to groups, a list and a page."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from blip2cli.commands.dedup import results
from blip2cli.features.duplicates import find_duplicates
from blip2cli.features.files import Features
from blip2cli.features.memory import features_in_memory
from blip2cli.inputs import ColumnChoice, open_source
from blip2cli.outputs.layout import Layout
from tests.conftest import Typed

Run = Callable[..., Typed]

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
CIRCLE = EXAMPLES / "red-circle.png"
NAMES = ("a", "b", "far", "zero", "nan", "broken", "copy-of-far")
"""Images of `features`: b is near a, the others are far from each other."""


def features(path: Path, images: Path | None = None, **columns: list[Any]) -> Path:
    """Write features of made-up images; with `images`, a file for each, of which two are equal."""
    vectors = np.eye(len(NAMES), 16, dtype=np.float32)[:, None].repeat(4, axis=1)
    vectors[1] = vectors[0]
    vectors[1, :, 15] = 0.2
    vectors[3], vectors[4] = 0, np.nan
    kind = pa.fixed_shape_tensor(pa.float32(), (4, 16))
    missing = pa.array([name == "broken" for name in NAMES])
    storage = pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), type=kind.storage_type, mask=missing)
    folder = "" if images is None else f"{images}/"
    table = pa.table(
        {
            "image": [f"{folder}{name}.png" for name in NAMES],
            **columns,
            "features": pa.ExtensionArray.from_storage(kind, storage),
            "error": pa.array(["truncated: gone" if name == "broken" else None for name in NAMES]),
        }
    )
    pq.write_table(table.replace_schema_metadata({b"blip2": b'{"features": "itc", "model": "tiny"}'}), path)
    if images is not None:
        images.mkdir()
        for number, name in enumerate(NAMES):
            side = 8 if name == "a" else 12
            colour = NAMES.index("far") if name == "copy-of-far" else number
            Image.new("RGB", (side, side), (40 * colour, 0, 0)).save(images / f"{name}.png")
    return path


def kept(rows: list[dict[str, Any]]) -> list[str]:
    return [Path(row["image"]).stem for row in rows if row["keep"]]


def test_images_are_embedded_first_and_what_is_kept_can_be_captioned(typed: Run) -> None:
    folder = Path("photos")
    folder.mkdir()
    circle = Image.open(CIRCLE).convert("RGB")
    circle.resize((60, 60)).save(folder / "a-small.png")
    ImageOps.mirror(circle).save(folder / "b-mirrored.png")
    circle.resize((300, 300)).save(folder / "c-large.png")
    shutil.copy(EXAMPLES / "teal-triangle.png", folder / "d.png")
    shutil.copy(EXAMPLES / "teal-triangle.png", folder / "e.png")
    words = (
        "dedup",
        "photos",
        "--keep",
        "largest",
        "--model",
        "tiny",
        "--dtype",
        "fp32",
        "--save-features",
        "f.parquet",
    )
    ran = typed(*words, "--list", "keep.txt", "--report", "groups.html")
    assert ran.code == 0, ran.err
    assert kept(ran.rows) == ["c-large", "d"]
    assert [row["duplicate"] for row in ran.rows] == ["near", "near", None, None, "exact"]
    assert "5 images, 2 kept; 2 groups of duplicates: 1 exact and 2 near duplicates dropped; 0 with errors" in ran.err
    assert Path("keep.txt").read_text() == "photos/c-large.png\nphotos/d.png\n"
    listed = open_source(("keep.txt",), ColumnChoice()).rows()
    assert [row.name for row in listed] == ["photos/c-large.png", "photos/d.png"]
    page = Path("groups.html").read_text()
    assert page.count("data:image/webp") == 5 and "same content" in page and 'href="./photos/c-large.png"' in page
    again = typed(*words)
    assert again.rows == ran.rows and "Loading" not in again.err, "the features are there"
    assert typed("dedup", "f.parquet", "--keep", "largest").rows == ran.rows


def test_features_are_enough_and_rows_with_errors_are_kept(typed: Run) -> None:
    ran = typed("dedup", features(Path("f.parquet")))
    assert ran.code == 3
    assert kept(ran.rows) == ["a", "far", "zero", "nan", "broken", "copy-of-far"]
    assert ran.rows[1] == {"image": "b.png", "group": 0, "keep": False, "duplicate": "near", "similarity": 0.980581,
                           "kept": "a.png", "error": None}  # fmt: skip
    assert [row["error"] for row in ran.rows[2:6]] == [
        None,
        *["failed: its features are all 0 or not finite; it was not compared, and is kept"] * 2,
        "truncated: gone",
    ]
    assert "6 images were not found and compared by features alone" in ran.err


def test_a_row_that_is_kept_for_many_is_read_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "ROWS_AT_ONCE", 4)
    found = features_in_memory(np.ones((40, 3), np.float32))
    read: list[int] = []
    records = Features.records
    monkeypatch.setattr(Features, "records", lambda self, rows: read.extend(rows) or records(self, rows))
    duplicates = find_duplicates(found, np.arange(40), np.arange(40), 0.9)
    layout = Layout({}, results.COLUMNS, lambda: pa.schema([]), {})
    written = [result for some in results.results_of(found, duplicates, layout) for result in some]
    assert [result.values[-1] for result in written] == [0] * 40
    assert sorted(read) == [0, *range(40)]


def test_equal_files_are_one_group_whatever_their_features_unless_content_is_skipped(typed: Run) -> None:
    file = features(Path("f.parquet"), Path("photos"))
    rows = typed("dedup", file, "--threshold", "1").rows
    assert kept(rows) == ["a", "b", "far", "zero", "nan", "broken"]
    assert (rows[6]["duplicate"], rows[6]["kept"], rows[6]["similarity"]) == ("exact", "photos/far.png", 1.0)
    assert "copy-of-far" in kept(typed("dedup", file, "--skip-content").rows)


def test_which_image_is_kept_is_the_users_choice(typed: Run) -> None:
    file = features(Path("f.parquet"), Path("photos"), score=[1.0, 2.5, None, None, 3.0, 0.0, 7.0])
    assert kept(typed("dedup", file).rows)[0] == "a"
    assert kept(typed("dedup", file, "--keep", "largest").rows)[0] == "b"
    best = typed("dedup", file, "--keep", "best-score", "--score-column", "score").rows
    assert kept(best) == ["b", "zero", "nan", "broken", "copy-of-far"]
    assert best[0]["score"] == 1.0, "columns are carried"


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.arrow", "rows.jsonl", "shards"])
def test_groups_are_written_in_every_format_of_rows(typed: Run, name: str) -> None:
    file = features(Path("f.parquet"))
    expected = [(row["image"], row["group"]) for row in typed("dedup", file).rows]
    assert typed("dedup", file, "--out", name).code == 3
    rows = open_source((name,), ColumnChoice()).rows()
    assert [(row.name, int(row.columns["group"])) for row in rows] == expected
    again = typed("dedup", file, "--out", name)
    assert again.code == 2 and "exists" in again.err
    assert typed("dedup", file, "--out", name, "--overwrite").code == 3


def test_images_without_a_name_are_named_by_their_row_and_csv_has_json_booleans(typed: Run) -> None:
    table = pq.read_table(features(Path("f.parquet")))
    image = pa.array([None, None, *table["image"].to_pylist()[2:]], pa.string())
    values = table["features"].combine_chunks().storage.values.to_numpy(zero_copy_only=False)
    wide = values.astype(np.float64).reshape(-1, 4, 16)
    wide[2] = 1e300  # more than fp32 holds, which is an error of the row
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(wide)
    pq.write_table(table.set_column(0, "image", image).set_column(1, "features", tensors), "f.parquet")
    ran = typed("dedup", "f.parquet", "--report", "page.html", "--out", "rows.csv")
    assert ran.code == 3 and "Traceback" not in ran.err and "Warning" not in ran.err
    lines = Path("rows.csv").read_text().splitlines()
    assert lines[1].startswith("f.parquet#0,0,true,,1.0,f.parquet#0,")
    assert lines[2].startswith("f.parquet#1,0,false,near,")
    assert lines[3].startswith('far.png,1,true,,,far.png,"failed: its ')
    assert len(typed("select", "rows.csv", "--where", "not keep").rows) == 1


def test_a_list_elsewhere_leads_to_the_images(typed: Run) -> None:
    file = features(Path("f.parquet"), Path("photos"))
    Path("lists").mkdir()
    typed("dedup", file, "--list", "lists/keep.txt")
    rows = list(open_source(("lists/keep.txt",), ColumnChoice()).rows())
    assert len(rows) == 5 and all(row.image and Path(row.image.path or "").is_file() for row in rows)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no input is given"),
        (["no.parquet"], "no such input: no.parquet"),
        (["f.parquet", "photos"], "f.parquet is a feature file, and there are other inputs"),
        (["f.parquet", "--threshold", "1.1"], "--threshold 1.1 is not a cosine"),
        (["f.parquet", "--threshold", "-2"], "--threshold -2 is not a cosine"),
        (["f.parquet", "--keep", "best-score"], "--keep best-score and --score-column belong together"),
        (["f.parquet", "--score-column", "n"], "--keep best-score and --score-column belong together"),
        (["f.parquet", "--keep", "best-score", "--score-column", "n"], "f.parquet has no column n"),
        (["f.parquet", "--keep", "best-score", "--score-column", "word"], "column word is not a number in row 1: 'x'"),
        (["f.parquet", "--keep", "largest", "--skip-content"], "--keep largest cannot be used with --skip-content"),
        (["f.parquet", "--list", "keep.csv"], "keep.csv does not end in .txt"),
        (["f.parquet", "--save-features", "g.parquet"], "--save-features needs images as input"),
        (["f.parquet", "--save-features", "g.npy"], "--save-features g.npy does not end in .parquet"),
        (["f.parquet", "--out", "f.parquet", "--overwrite"], "f.parquet is an input"),
        (["f.parquet", "--out", "a.jsonl", "--list", "a.txt", "--report", "a.txt"], "--report and --list are both"),
        (["f.parquet", "--report", "photos"], "photos is a folder"),
        (["photos", "--report", "photos/a.png", "--overwrite"], "--report photos/a.png does not end in .html"),
        (["twice.parquet"], "twice.parquet has several columns of one name"),
        (["f.parquet", "--format", "coco", "--out", "c.json"], "--format coco is not for dedup"),
        (["texts.parquet"], "texts.parquet holds features of texts"),
        (["rows.parquet", "--model", "tiny"], "rows.parquet has no image column"),
        (["f.npy"], "cannot read f.npy"),
    ],
)
def test_what_is_wrong_is_told_in_two_lines(typed: Run, words: list[str], message: str) -> None:
    features(Path("f.parquet"), word=["x"] * len(NAMES))
    Path("photos").mkdir()
    np.save("f.npy", np.zeros((3, 4)))
    pq.write_table(pa.table({"n": [1]}), "rows.parquet")
    kind = pa.fixed_shape_tensor(pa.float32(), (2,))
    texts = pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(pa.array([1.0, 0], pa.float32()), 2))
    table = pa.table({"image": pa.array(["x"]), "features": texts, "error": pa.array([None], pa.string())})
    pq.write_table(table.replace_schema_metadata({b"blip2": b'{"features": "itc"}'}), "texts.parquet")
    file = pq.read_table("f.parquet")
    pq.write_table(file.append_column("image", file["image"]), "twice.parquet")
    ran = typed("dedup", *words)
    lines = ran.err.splitlines()
    assert ran.code == 2 and message in lines[0] and len(lines) == 2 and lines[1].startswith("       "), ran.err


def test_a_folder_of_images_beside_features_is_a_folder_of_images(typed: Run) -> None:
    features(Path("f.parquet"), Path("photos"))
    shutil.move("f.parquet", "photos/f.parquet")
    shutil.copy(CIRCLE, "photos/circle.png")
    rows = typed("dedup", "photos", "--model", "tiny").rows
    assert "photos/circle.png" in {row["image"] for row in rows}
    one = typed("dedup", CIRCLE, "--model", "tiny", "--list", "one.txt")
    assert "1 image, 1 kept; 0 groups" in one.err and "one.txt: 1 kept image\n" in one.err


def test_ctrl_c_says_what_is_kept(typed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    file = features(Path("f.parquet"), Path("photos"))
    with monkeypatch.context() as patched:
        patched.setattr("blip2cli.features.duplicates.find_groups", stop)
        ran = typed("dedup", file)
    assert (ran.code, ran.err) == (
        130, "blip2: interrupted\n       Nothing was written; run the same command again.\n",
    )  # fmt: skip
    monkeypatch.setattr("blip2cli.commands.dedup.sheets.album_of", stop)
    ran = typed("dedup", file, "--out", "d.jsonl", "--list", "k.txt", "--report", "r.html", "--quiet")
    assert ran.code == 130
    assert ran.err.endswith("d.jsonl and k.txt are kept; run the same command again.\n")
    assert len(Path("d.jsonl").read_text().splitlines()) == len(NAMES) and not Path("r.html").exists()


def test_the_page_escapes_what_it_shows_and_loads_nothing(typed: Run, browser: Any) -> None:
    name = "<script>alert(1)</script>\"'><img src=x>"
    features(Path("f.parquet"))
    table = pq.read_table("f.parquet")
    names = pa.array([f"{name}{at}" for at in range(len(table))])
    pq.write_table(table.set_column(0, "image", names), "evil.parquet")
    assert typed("dedup", "evil.parquet", "--report", "r.html").code == 3
    page = browser.new_page(viewport={"width": 360, "height": 640}, color_scheme="dark")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(Path("r.html").absolute().as_uri())
    assert page.locator(".name").all_inner_texts() == [f"{name}0", f"{name}1"]
    assert page.locator("script, img").count() == 0 and len(requests) == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert "2 images have no thumbnail" in page.locator(".note").inner_text()
    page.close()


def test_a_page_of_many_images_is_bounded(typed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blip2cli.commands.dedup.sheets.IMAGES", 5)
    monkeypatch.setattr("blip2cli.commands.dedup.sheets.IMAGES_OF_GROUP", 3)
    circle = Image.open(CIRCLE).convert("RGB")
    Path("photos").mkdir()
    for at in range(12):
        image = circle if at % 3 else Image.open(EXAMPLES / "teal-triangle.png")
        image.save(f"photos/{at:02}.png")
    assert typed("dedup", "photos", "--model", "tiny", "--report", "r.html").code == 0
    page = Path("r.html").read_text()
    assert page.count("<li") == 5 and "8 images, 3 of them shown" in page


def test_images_in_archives_are_compared_and_left_out_of_the_list(typed: Run) -> None:
    shutil.make_archive("photos", "zip", EXAMPLES.parent, "examples")
    ran = typed("dedup", "photos.zip", "--model", "tiny", "--list", "keep.txt")
    assert ran.code == 0 and "not found" not in ran.err
    assert "kept images have no path of their own" in ran.err and Path("keep.txt").read_text() == ""
