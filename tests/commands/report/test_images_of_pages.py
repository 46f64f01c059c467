"""Where a report finds images, whatever their names, and which it never shows."""

import os
import shutil
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.commands.report.pages import CIRCLE, EXAMPLES, PAGE, Run, column, data_of, reported, results, thumbnails_of


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
