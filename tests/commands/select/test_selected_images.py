"""Images of selected rows, copied or linked into a folder."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.commands.select.rows import EXAMPLES, IMAGES, write
from tests.conftest import Typed

Run = Callable[..., Typed]


def test_results_in_the_folder_for_images_are_answered_with_its_option(typed: Run, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    write(tmp_path / "d" / "r.jsonl", [{"image": "a.png"}])
    refused = typed("select", "d/r.jsonl", "--images-to", "d")
    assert refused.code == 2 and refused.err.endswith("Choose another --images-to.\n")


def test_images_are_copied_once_and_nothing_is_overwritten(typed: Run, tmp_path: Path) -> None:
    for folder, image in (("a", IMAGES[0]), ("b", IMAGES[1]), ("c", IMAGES[0])):
        Path(folder).mkdir()
        shutil.copy(EXAMPLES / image, f"{folder}/x.png")
    Path("d").mkdir()
    Path("d/x-2.png").write_text("mine")
    rows = [{"image": f"{folder}/x.png", "id": n} for n, folder in enumerate("abac")]
    write(tmp_path / "r.jsonl", [*rows, {"image": "gone.png", "id": 9}])
    ran = typed("select", "r.jsonl", "--images-to", "d")
    assert ran.code == 3 and ran.out == ""
    assert "warning: gone.png: missing" in ran.err
    assert ran.err.endswith("2 images copied to d, 1 there already, 1 not found\n"), "c/x.png is equal to a/x.png"
    assert {path.name for path in Path("d").iterdir()} == {"x.png", "x-2.png", "x-3.png"}
    assert Path("d/x-2.png").read_text() == "mine"
    assert Path("d/x-3.png").read_bytes() == Path("b/x.png").read_bytes()
    again = typed("select", "r.jsonl", "--images-to", "d", "--where", "id < 9")
    assert again.code == 0 and again.err.endswith("0 images copied to d, 3 there already, 0 not found\n")


def test_long_names_are_cut_to_what_a_folder_takes(typed: Run, tmp_path: Path) -> None:
    for start in ("1", "2"):
        shutil.copy(EXAMPLES / IMAGES[int(start)], start + "写" * 83 + ".png")
    write(tmp_path / "r.jsonl", [{"image": start + "写" * 83 + ".png"} for start in ("1", "2")])
    ran = typed("select", "r.jsonl", "--images-to", "d")
    assert ran.code == 0 and ran.err.endswith("2 images copied to d, 0 not found\n")
    assert {path.name for path in Path("d").iterdir()} == {"写" * 66 + ".png", "写" * 66 + "-2.png"}


def test_links_in_the_folder_are_not_written_through(typed: Run, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / IMAGES[0], "x.png")
    Path("mine").write_text("mine")
    Path("d").mkdir()
    Path("d/.x.png.tmp.blip2").symlink_to(tmp_path / "mine")
    write(tmp_path / "r.jsonl", [{"image": "x.png"}])
    assert typed("select", "r.jsonl", "--images-to", "d").code == 0
    assert Path("mine").read_text() == "mine"
    assert [path.name for path in Path("d").iterdir()] == ["x.png"]


def test_images_are_linked(typed: Run, results: str) -> None:
    words = ["select", results, "--where", "probability > 0.9", "--images-to", "d", "--link", "--out", "o.csv"]
    assert typed(*words).code == 0
    links = sorted(Path("d").iterdir())
    assert [link.name for link in links] == [IMAGES[0], IMAGES[2]]
    assert all(link.is_symlink() and link.read_bytes() == (EXAMPLES / link.name).read_bytes() for link in links)
    assert Path("o.csv").exists()


def test_images_within_results_get_a_name_and_cannot_be_linked(typed: Run, tmp_path: Path) -> None:
    data = [(EXAMPLES / name).read_bytes() for name in IMAGES[:2]]
    pq.write_table(pa.table({"image": data, "caption": ["x", "y"]}), "r.parquet")
    assert typed("select", "r.parquet", "--where", "caption = 'y'", "--images-to", "d").code == 0
    (path,) = Path("d").iterdir()
    assert (path.name, path.read_bytes()) == ("r.parquet_1.png", data[1])
    refused = typed("select", "r.parquet", "--images-to", "l", "--link")
    assert refused.code == 3 and "cannot be linked" in refused.err


def test_names_in_results_do_not_lead_out_of_the_folder(typed: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(EXAMPLES / IMAGES[0], "x.png")
    Path("secret.txt").write_text("secret")
    write(tmp_path / "in" / "r.jsonl", [{"image": "../x.png"}, {"image": "../secret.txt"}, {"image": "/etc/passwd"}])
    assert typed("select", "in/r.jsonl", "--images-to", "d").code == 3
    assert [path.name for path in Path("d").iterdir()] == ["x.png"], "what is not an image is not copied"
    assert typed("select", "in/r.jsonl", "--images-to", "e", "--image-root", "in").code == 3
    assert not any(Path("e").iterdir())
