"""Sidecar files, arrays with metadata, and WebDataset shards, read as those who use them do."""

import contextlib
import errno
import gc
import json
import os
import tarfile
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from blip2cli.outputs.journal import Journal
from tests.conftest import Typed
from tests.outputs.kept import Killed, texts

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
Run = Callable[..., Typed]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two images, one in a folder below, and a file that is none."""
    (tmp_path / "photos" / "a").mkdir(parents=True)
    for name, example in (("a/x.png", "red-circle"), ("y.png", "teal-triangle")):
        (tmp_path / "photos" / name).write_bytes((EXAMPLES / f"{example}.png").read_bytes())
    (tmp_path / "photos" / "bad.jpg").write_text("no image")
    return tmp_path / "photos"


def test_sidecars_stand_beside_the_images(typed: Run, photos: Path) -> None:
    ran = typed("caption", "photos", "--format", "sidecar")
    assert ran.code == 3 and len(ran.rows) == 3
    assert texts("photos") == {"a/x.txt": "a red circle", "y.txt": "a teal triangle"}


def test_a_text_that_cannot_be_written_is_named(typed: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("blip2cli.outputs.sidecar.SidecarOutput._write_text", refuse)
    ran = typed("caption", "photos/y.png", "--format", "sidecar")
    assert ran.code == 1 and "blip2: cannot write photos/y.txt: Read-only file system" in ran.err


def test_images_that_have_a_text_are_passed_over(typed: Run, photos: Path) -> None:
    (photos / "y.txt").write_text("mine")
    assert [row["image"] for row in typed("caption", "photos", "--format", "sidecar").rows] == [
        "photos/a/x.png",
        "photos/bad.jpg",
    ]
    (photos / "bad.jpg").write_bytes((EXAMPLES / "blue-circle.png").read_bytes())
    assert [row["caption"] for row in typed("caption", "photos", "--format", "sidecar").rows] == ["a blue circle"]
    assert texts("photos") == {"a/x.txt": "a red circle", "bad.txt": "a blue circle", "y.txt": "mine"}
    assert typed("caption", "photos", "--format", "sidecar", "--existing", "overwrite").code == 0
    assert texts("photos")["y.txt"] == "a teal triangle"


def test_sidecars_in_a_folder_of_their_own(typed: Run, photos: Path) -> None:
    ran = typed("caption", "photos", "--format", "sidecar", "--out", "texts")
    assert ran.code == 3 and ran.out == ""
    assert texts("texts") == {"photos/a/x.txt": "a red circle", "photos/y.txt": "a teal triangle"}
    (error,) = map(json.loads, Path("texts.errors.jsonl").read_text().splitlines())
    assert error["image"] == "photos/bad.jpg" and error["error"].startswith("unsupported")
    assert typed("caption", "photos", "--format", "sidecar", "--out", "photos").code == 3
    assert texts("photos") == {"a/x.txt": "a red circle", "y.txt": "a teal triangle"}


def test_no_name_leads_out_of_the_folder(typed: Run, photos: Path) -> None:
    Path("m.csv").write_text("image\n../photos/y.png\n")
    (photos.parent / "sub").mkdir()
    Path("m.csv").rename("sub/m.csv")
    assert typed("caption", "sub/m.csv", "--format", "sidecar", "--out", "sub/texts").code == 0
    assert texts("sub/texts") == {"photos/y.txt": "a teal triangle"}


def test_names_that_no_file_can_have_are_error_rows(typed: Run, tmp_path: Path) -> None:
    data = (EXAMPLES / "red-circle.png").read_bytes()
    names = ["../..", "a" * 300 + ".png", "fine.png", "nul\0.png", "/"]
    table = pa.table({"image": [{"bytes": data, "path": name} for name in names]})
    pq.write_table(table, "m.parquet")
    ran = typed("caption", "m.parquet", "--format", "sidecar", "--out", "texts")
    assert ran.code == 3 and texts(".") == {"texts/fine.txt": "a red circle"}
    errors = [json.loads(line)["error"] for line in Path("texts.errors.jsonl").read_text().splitlines()]
    assert len(errors) == 4 and all(error.startswith("unsupported: ") for error in errors)
    assert "4 with errors" in ran.err and "4 unsupported" in ran.err
    ran = typed("caption", "m.parquet", "--format", "sidecar")
    assert ran.code == 3 and {(row["caption"], row["error"]) for row in ran.rows} == {
        (None, "unsupported: the image is not a file that a text can be next to; give --out FOLDER")
    }


def test_appending_needs_a_place_for_its_journal(typed: Run, photos: Path) -> None:
    ran = typed("caption", "photos", "--format", "sidecar", "--existing", "append")
    assert ran.code == 2 and "--existing append needs --out" in ran.err
    ran = typed("caption", "photos", "--existing", "skip", "--out", "o.jsonl")
    assert ran.code == 2 and "--existing needs --format sidecar" in ran.err
    for out, told in (("photos/y.png", "photos/y.png is a file"), ("memory://x", "memory://x is a URL")):
        ran = typed("caption", "photos", "--format", "sidecar", "--out", out)
        assert ran.code == 2 and told in ran.err and ran.err.count("\n") == 2


@pytest.mark.parametrize("kill", range(1, 9))
@pytest.mark.parametrize("behind", [False, True])
def test_a_killed_run_appends_once(
    typed: Run, photos: Path, monkeypatch: pytest.MonkeyPatch, kill: int, behind: bool
) -> None:
    (photos / "y.txt").write_text("tag one, tag two\n")
    words = ["caption", "photos", "--format", "sidecar", "--existing", "append", "--out", "photos"]
    words += ["--batch-size", "1", "--workers", "0", "--commit-every", "0"]
    add, left = Journal.add, [kill]

    def dying(self: Journal, commit: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            if behind:
                add(self, commit)
            raise Killed
        add(self, commit)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "add", dying)
        with contextlib.suppress(Killed):
            typed(*words)
    assert typed(*words, "--resume").code == 3
    assert texts("photos") == {"a/x.txt": "a red circle", "y.txt": "tag one, tag two, a teal triangle"}


def test_arrays_and_metadata_as_clip_retrieval_has_them(typed: Run, photos: Path) -> None:
    words = ["embed", "photos", EXAMPLES, "--pool", "mean", "--format", "npy", "--shard-size", 5, "--out", "feats"]
    assert typed(*words).code == 3
    typed("embed", "photos", EXAMPLES, "--pool", "mean", "--out", "f.parquet")
    expected = pq.read_table("f.parquet").to_pylist()
    arrays = [np.load(path, allow_pickle=False) for path in sorted(Path("feats/img_emb").iterdir())]
    tables = [pq.read_table(path).to_pylist() for path in sorted(Path("feats/metadata").iterdir())]
    assert [array.shape for array in arrays] == [(len(table), 128) for table in tables]
    assert [len(table) for table in tables] == [5] * (len(expected) // 5) + [len(expected) % 5] * (
        len(expected) % 5 > 0
    )
    for values, row, whole in zip(np.concatenate(arrays), chain(*tables), expected, strict=True):
        assert row == {"image_path": whole["image"], "error": whole["error"]}
        assert np.array_equal(values, np.zeros(128) if whole["error"] else np.array(whole["features"], np.float32))


def test_shapes_and_precisions_of_arrays(typed: Run) -> None:
    typed("embed", EXAMPLES / "red-circle.png", "--format", "npy", "--store", "fp16", "--out", "f")
    array = np.load("f/img_emb/img_emb_00000.npy", allow_pickle=False)
    assert array.shape == (1, 8, 128) and array.dtype == np.float16
    Path("none.csv").write_text("image\n")
    assert typed("embed", "none.csv", "--format", "npy", "--out", "none").code == 0
    assert np.load("none/img_emb/img_emb_00000.npy").shape == (0, 8, 128)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves closing to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_what_is_written(typed: Run, photos: Path) -> None:
    assert typed("caption", "photos", EXAMPLES, "--format", "webdataset", "--shard-size", 4, "--out", "w").code == 3
    shards = sorted(map(str, Path("w").glob("*.tar")))
    found = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
    rows = [row for path in sorted(Path("w").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    good = [row for row in rows if row["error"] is None]
    assert len(rows) == len(good) + 1 and len(found) == len(good)
    for sample, row in zip(found, good, strict=True):
        assert sample["txt"] == row["caption"] and sample["json"]["image"] == row["image"]
        assert (sample.get("png") or sample.get("jpg")).size == (256, 256)
    gc.collect()


def test_webdataset_in_and_out_keeps_keys_and_columns(typed: Run, photos: Path) -> None:
    with webdataset.TarWriter("in.tar") as writer:
        for key in ("first", "second"):
            image = (EXAMPLES / "red-circle.png").read_bytes()
            writer.write({"__key__": key, "png": image, "txt": f"alt {key}", "json": {"key": key, "n": 1}})
    assert typed("caption", "in.tar", "--format", "webdataset", "--out", "w").code == 0
    with tarfile.open("w/00000.tar") as archive:
        names = archive.getnames()
        said = json.load(archive.extractfile("second.json"))  # type: ignore[arg-type]
    assert names == [f"{key}.{suffix}" for key in ("first", "second") for suffix in ("png", "txt", "json")]
    assert (said["n"], said["txt"], said["caption"]) == (1, "alt second", "a red circle")
    ran = typed("caption", "w/00000.tar")
    assert [row["input_caption"] for row in ran.rows] == ["a red circle"] * 2


LAYOUTS: dict[str, tuple[Any, ...]] = {
    "npy": ("embed", "--pool", "mean", "--format", "npy"),
    "webdataset": ("caption", "--format", "webdataset"),
}


def contents(folder: str) -> dict[str, Any]:
    files = {path.relative_to(folder).as_posix(): path for path in sorted(Path(folder).rglob("*")) if path.is_file()}
    return {
        name: pq.read_table(path).to_pylist() if path.suffix == ".parquet" else path.read_bytes()
        for name, path in files.items()
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_gone_on_with_and_their_errors_retried(typed: Run, photos: Path, layout: str) -> None:
    task, *options = LAYOUTS[layout]
    words = [task, "photos", EXAMPLES, *options, "--shard-size", 4]
    typed(*words, "--out", "o", "--limit", 6)
    assert typed(*words, "--out", "o", "--resume").code == 3
    typed(*words, "--out", "whole")
    assert contents("o") == contents("whole")
    (photos / "bad.jpg").write_bytes((EXAMPLES / "blue-circle.png").read_bytes())
    assert typed(*words, "--out", "o", "--resume", "--retry-errors").code == 0
    typed(*words, "--out", "mended")
    assert contents("o") == contents("mended")
    ran = typed(*words, "--out", "o")
    assert ran.code == 2 and "o exists" in ran.err
    assert typed(*words, "--out", "o", "--overwrite").code == 0 and contents("o") == contents("mended")


@pytest.mark.parametrize("form", ["webdataset", "imagefolder"])
def test_what_is_copied_is_read_again_whatever_its_format(typed: Run, tmp_path: Path, form: str) -> None:
    picture = Image.open(EXAMPLES / "red-circle.png").convert("RGB")
    Path("photos").mkdir()
    picture.save("photos/0.jpg", "MPO", save_all=True, append_images=[picture])
    picture.save("photos/1.png", "JPEG2000")
    picture.save("photos/2.jpg", "QOI")
    assert typed("caption", "photos", "--format", form, "--out", "o").code == 0
    read = ("o/00000.tar",) if form == "webdataset" else ("o",)
    rows = typed("caption", *read).rows
    assert [Path(row["image"]).suffix for row in rows] == [".jpg", ".jp2", ".qoi"]
    assert [row["error"] for row in rows] == [None] * 3
