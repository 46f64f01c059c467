"""What an input holds and is not read is counted, by suffix, with the extra that would read it."""

import io
import json
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from blip2cli.inputs import ColumnChoice, open_source
from blip2cli.inputs.image_formats import OTHERS, note_unread, unread_summary
from tests.conftest import Typed

CIRCLE = (Path(__file__).parents[2] / "docs" / "examples" / "red-circle.png").read_bytes()
NAMES = [
    "1.heic",
    "2.HEIC",
    "a.png",
    "a.caption",
    "a.json",
    "a.npz",
    "b/clip.mov",
    "b/more.tar",
    "b/README",
    ".hidden.mov",
]
COUNTED = {".heic": 2, ".mov": 1, ".tar": 1, "": 1}
TOLD = "5 files were not read: 2 .heic (pip install 'blip2cli[heif]'), 1 without a suffix, 1 .mov, 1 .tar"

Run = Callable[..., Typed]


@pytest.fixture
def photos(typed: Run, without_heif: None) -> str:
    """A folder with one image that is read, and others that are not, in the current one."""
    for name in NAMES:
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Path("photos", name).write_bytes(b"{}" if name == "a.json" else CIRCLE)
    return "photos"


def test_the_closing_summary_and_the_dry_run_say_what_a_folder_holds_and_is_not_read(typed: Run, photos: str) -> None:
    ran = typed("caption", photos, "--summary", "s.json")
    assert ran.code == 0 and len(ran.rows) == 1 and TOLD in ran.err.splitlines()
    assert json.loads(Path("s.json").read_text())["not_read"] == COUNTED
    assert " were not read: 2 .heic (pip install " in typed("caption", photos, "--dry-run").out
    assert " not read" not in typed("caption", photos, "--quiet").err


def test_where_all_is_read_nothing_is_said(typed: Run, photos: str) -> None:
    assert "not read" not in typed("caption", "photos/a.png").err


def archived(kind: str) -> str:
    files = sorted(path for path in Path("photos").rglob("*") if path.is_file())
    if kind == "a.zip":
        with zipfile.ZipFile(kind, "w") as packed:
            for path in files:
                packed.write(path, path.relative_to("photos"))
        return kind
    with tarfile.open(kind, "w:gz" if kind.endswith("gz") else "w") as packed:
        for path in files:
            info = tarfile.TarInfo(str(path.relative_to("photos")))
            info.size = path.stat().st_size
            packed.addfile(info, io.BytesIO(path.read_bytes()))
    return kind


@pytest.mark.parametrize("kind", ["a.tar", "a.tar.gz", "a.zip"])
def test_members_of_archives_are_counted_too(typed: Run, photos: str, kind: str) -> None:
    ran = typed("caption", archived(kind), "--summary", "s.json")
    assert ran.code == 0 and json.loads(Path("s.json").read_text())["not_read"] == COUNTED
    assert " were not read: 2 .heic (pip install " in typed("caption", kind, "--dry-run").out


def test_files_that_a_glob_matches_are_counted(photos: str) -> None:
    source = open_source(["photos/*.*"], ColumnChoice())
    assert len(list(source.rows())) == 1 and source.unread() == {".heic": 2}


def test_a_folder_of_nothing_else_says_what_it_holds(typed: Run, photos: str) -> None:
    for name in ("a.png", "b/more.tar"):
        Path("photos", name).unlink()
    ran = typed("caption", photos)
    assert ran.code == 2 and "no images found in photos; 4 files were not read: 2 .heic (pip install" in ran.err


def test_metadata_that_is_read_is_not_counted(photos: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"file_name": ["a.png"], "n": [1]}), "photos/metadata.parquet")
    source = open_source([photos], ColumnChoice())
    assert source.count() == 1 and source.unread() == COUNTED


def test_a_hostile_variety_of_suffixes_takes_no_more_room() -> None:
    counts: Counter[str] = Counter()
    for number in range(3000):
        note_unread(counts, f"a.{number}" + "x" * 100)
    assert len(counts) == 1001 and counts.total() == 3000 and max(map(len, counts)) <= 16
    assert unread_summary(counts).endswith(f" {OTHERS}") and len(unread_summary(counts)) < 300
    assert unread_summary({".mov": 1}) == "1 file was not read: 1 .mov"
