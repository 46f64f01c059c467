"""`blip2 search --rerank` and `--report`: the images of rows are found wherever `embed` read them, and read once."""

import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2cli.commands.search import rerank
from blip2cli.images import decode as images
from blip2cli.model.retrieval import RetrievalModel
from tests.commands.report.pages import data_of
from tests.conftest import Typed

Run = Callable[..., Typed]

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
SCENES = EXAMPLES / "scenes"
PAGE = Path("found.html")
TEXTS = ("a red circle", "a blue circle", "a yellow triangle and a gray circle")


def embedded(typed: Run, *words: object) -> None:
    """Write f.parquet."""
    assert typed("embed", *words, "--features", "itc", "--dtype", "fp32", "--out", "f.parquet").code == 0


def searched(typed: Run, *words: object) -> Typed:
    """Search f.parquet."""
    return typed("search", "f.parquet", *words, "--dtype", "fp32", "--workers", 0)


def with_bytes(name: str, images: list[Any], column: str = "image") -> str:
    """A Parquet table whose column of images holds bytes, or structs."""
    pq.write_table(pa.table({column: images}), name)
    return name


def archived(paths: list[Path]) -> None:
    """Write shapes.tar."""
    with tarfile.open("shapes.tar", "w") as archive:
        for path in paths:
            archive.add(path, path.name)


def files() -> list[Path]:
    """Scenes, and shapes alone."""
    return sorted([*EXAMPLES.glob("*.png"), *SCENES.iterdir()])


@pytest.mark.parametrize("kind", ["tar", "zip", "parquet"])
def test_images_within_archives_and_tables_are_ranked_again_and_shown(typed: Run, kind: str) -> None:
    shutil.copytree(EXAMPLES, "photos", ignore=shutil.ignore_patterns("*.jsonl"))
    given: list[Any] = [f"photos.{kind}"]
    if kind == "parquet":
        with_bytes("photos.parquet", [path.read_bytes() for path in files()], "pixels")
        given += ["--image-column", "pixels"]
    else:
        shutil.make_archive("photos", kind, "photos")
    embedded(typed, *given)
    done = searched(typed, *TEXTS[:2], "--rerank", 20, "--report", PAGE)
    assert done.code == 0, done.err
    match = typed("match", *given, "-t", TEXTS[0], "-t", TEXTS[1], "--dtype", "fp32").rows
    scores = {(row["text"], row["image"]): row["itm"] for row in match}
    assert len(done.rows) == 20 and {row["image"].partition(kind)[0] for row in done.rows} == {"photos."}
    for row in done.rows:
        assert row["itm"] == pytest.approx(scores[row["query"], row["image"]], rel=1e-3)
    page = data_of(PAGE)
    assert page["faults"] == {} and min(page["places"]) == 0, "all have a thumbnail"


@pytest.mark.parametrize("typed_name", ["./photos.zip", "sub//photos.zip", "bytes\udcff.zip", "a#1.zip"])
def test_an_archive_is_found_however_it_was_typed_and_below_a_root_when_it_has_moved(
    typed: Run, typed_name: str
) -> None:
    Path("sub").mkdir()
    shutil.make_archive("photos", "zip", SCENES)
    Path("photos.zip").rename(typed_name)
    embedded(typed, typed_name)
    words = (TEXTS[0], "--rerank", 20)
    found = searched(typed, *words)
    assert found.code == 0, found.err
    target = Path("moved", found.rows[0]["image"].rpartition("/")[0])
    target.parent.mkdir(parents=True)
    Path(typed_name).rename(target)
    assert searched(typed, *words).code == 3
    moved = searched(typed, *words, "--image-root", "moved")
    assert moved.code == 0 and moved.rows == found.rows


def test_below_a_root_nothing_is_taken_from_the_working_folder(typed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, name in (("moved", "red-circle.png"), (".", "blue-circle.png")):
        Path(folder).mkdir(exist_ok=True)
        with zipfile.ZipFile(Path(folder, "a.zip"), "w") as archive:
            archive.write(EXAMPLES / name, "one.png")
    with monkeypatch.context() as there:
        there.chdir("moved")
        embedded(typed, "a.zip")
    shutil.move("moved/f.parquet", "f.parquet")
    itm = [
        searched(typed, TEXTS[0], "--rerank", 1, "-k", 1, *root).rows[0]["itm"]
        for root in ((), ("--image-root", "moved"))
    ]
    assert itm[0] < 0.5 < itm[1], "the blue one, and the red one"


def test_below_a_root_names_lead_nowhere_else(typed: Run) -> None:
    Path("root").mkdir()
    shutil.copytree(SCENES, "photos")
    embedded(typed, "photos")
    done = searched(typed, TEXTS[0], "-k", 20, "--rerank", 20, "--image-root", "root", "--report", PAGE)
    assert done.code == 3 and {row["error"] for row in done.rows} == {"missing: no such file"}
    Path("root/photos").symlink_to("../photos")
    done = searched(typed, TEXTS[0], "-k", 20, "--rerank", 20, "--image-root", "root", "--report", PAGE, "--overwrite")
    assert done.code == 3 and {row["error"] for row in done.rows} == {"unreadable: outside the image root"}
    assert max(data_of(PAGE)["places"]) == -1
    inside = searched(typed, TEXTS[0], "-k", 20, "--rerank", 20, "--image-root", ".")
    assert inside.code == 0


def test_the_exit_code_is_that_of_the_rows_written(typed: Run) -> None:
    shutil.copytree(SCENES, "photos")
    embedded(typed, "photos")
    last = searched(typed, TEXTS[0], "-k", 20).rows[-1]["image"]
    Path(last).unlink()
    few = searched(typed, TEXTS[0], "-k", 2, "--rerank", 20)
    assert few.code == 0 and f"1 image was not ranked again: {last} (missing" in few.err
    assert searched(typed, TEXTS[0], "-k", 20, "--rerank", 20).code == 3


def test_images_that_names_do_not_lead_to_are_taken_from_the_input_that_is_named(
    typed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(SCENES, "photos")
    shapes = [{"path": f"elsewhere/{path.name}", "bytes": path.read_bytes()} for path in sorted(EXAMPLES.glob("*.png"))]
    embedded(typed, "photos", with_bytes("hf.parquet", shapes))
    words = (*TEXTS, "--rerank", 20, "-k", 20)
    lost = searched(typed, *words)
    assert lost.code == 3 and {row["error"] for row in lost.rows} == {None, "missing: no such file"}
    said = f"{len(shapes)} images were not ranked again, such as elsewhere/"
    assert said in lost.err and lost.err.count("warning") == 1, "each is counted once, whatever found it"
    done = searched(typed, *words, "--images", "hf.parquet", "--report", PAGE)
    assert done.code == 0 and {row["image"].partition("/")[0] for row in done.rows} == {"photos", "elsewhere"}
    assert data_of(PAGE)["faults"] == {}
    monkeypatch.setattr("blip2cli.model.load_model", lambda *_: pytest.fail("it is told before"))
    for name in ("gone.parquet", "f.txt"):
        Path("f.txt").write_text("no input")
        wrong = searched(typed, *words, "--images", name)
        assert wrong.code == 2 and name in wrong.err and wrong.err.count("\n") == 2


def test_an_image_that_several_texts_found_is_decoded_and_encoded_once(
    typed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded(typed, EXAMPLES)
    expected = [searched(typed, text, "--rerank", 9, "-k", 9).rows for text in TEXTS]
    counts = {"started": 0, "decoded": 0, "encoded": 0, "pairs": 0}

    def counted(name: str, function: Callable[..., Any], number: Callable[..., int] = lambda *_: 1) -> Callable:
        def call(*given: Any, **named: Any) -> Any:
            counts[name] += number(*given)
            return function(*given, **named)

        return call

    monkeypatch.setattr(images, "decode", counted("decoded", images.decode))
    monkeypatch.setattr(rerank, "load_for", counted("started", rerank.load_for))
    see, match = RetrievalModel._see, RetrievalModel._match
    monkeypatch.setattr(RetrievalModel, "_see", counted("encoded", see, lambda _, pixels: len(pixels)))
    monkeypatch.setattr(RetrievalModel, "_match", counted("pairs", match, lambda _, pairs: len(pairs)))
    rows = searched(typed, *TEXTS, "--rerank", 9, "-k", 9, "--batch-size", 4).rows
    found = {row["image"] for row in rows}
    assert len(found) < len(rows) == 27
    assert counts == {"started": 1, "decoded": len(found), "encoded": len(found), "pairs": 27}
    for row, alone in zip(rows, [row for some in expected for row in some], strict=True):
        assert row == {**alone, **{score: pytest.approx(alone[score], abs=2e-6) for score in ("itc", "itm")}}


def test_what_is_no_more_in_an_archive_is_an_error_of_its_rows(typed: Run) -> None:
    first, *others = scenes = sorted(SCENES.iterdir())
    archived(scenes)
    embedded(typed, "shapes.tar")
    archived(others)
    gone = searched(typed, TEXTS[0], "--rerank", 20)
    assert gone.code == 3 and "1 image was not ranked again: " in gone.err
    assert (gone.rows[-1]["image"], gone.rows[-1]["error"]) == (
        f"shapes.tar/{first.name}",
        "missing: its image was not found",
    )
    assert all(row["itm"] is not None for row in gone.rows[:-1])
    Path("shapes.tar").write_bytes(b"no archive")
    broken = searched(typed, TEXTS[0], "--rerank", 20, "--report", PAGE)
    assert broken.code == 3 and all(row["itc"] and row["itm"] is None for row in broken.rows)
    assert {row["error"] for row in broken.rows} == set(data_of(PAGE)["faults"].values())
    assert broken.rows[0]["error"].startswith("unreadable: cannot read shapes.tar: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--images", "photos"], "--images needs --rerank or --report"),
        (["--image-root", "photos"], "--image-root needs --rerank or --report"),
        (["--allow-remote"], "--allow-remote needs --rerank or --report"),
        (["--rerank", "10", "--image-root", "gone"], "no such folder: --image-root gone"),
        (["--report", "f.parquet", "--overwrite"], "f.parquet is an input"),
        (["--index", "f.parquet"], "f.parquet is an input"),
        (["--out", "f.parquet", "--overwrite"], "f.parquet is an input"),
        (
            ["--rerank", "10", "--images", "photos.zip", "--report", "photos.zip", "--overwrite"],
            "photos.zip is an input",
        ),
        (["--rerank", "10", "--images", "*.zip", "--report", "photos.zip", "--overwrite"], "photos.zip is an input"),
        (["--image", "photos/red-circle.png", "--index", "photos/red-circle.png"], "photos/red-circle.png is an input"),
        (["--report", "x.parquet", "--out", "x.parquet"], "--out and --report are both x.parquet"),
        (["--report", "x.html", "--index", "./x.html"], "--report and --index are both x.html"),
    ],
)
def test_options_that_do_not_go_together_and_outputs_that_are_inputs_are_told(
    typed: Run, words: list[str], said: str
) -> None:
    shutil.copytree(EXAMPLES, "photos", ignore=shutil.ignore_patterns("*.jsonl", "scenes"))
    shutil.make_archive("photos", "zip", "photos")
    embedded(typed, "photos")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    done = searched(typed, TEXTS[0], *words)
    assert done.code == 2 and done.err.startswith(f"blip2: {said}") and done.err.count("\n") == 2
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_a_part_of_a_folder_of_features_is_not_replaced(typed: Run) -> None:
    assert typed("embed", SCENES, "--features", "itc", "--out", "shards", "--shard-size", 4).code == 0
    part = next(Path("shards").glob("*.parquet"))
    done = typed("search", "shards", TEXTS[0], "--out", part, "--overwrite")
    assert done.code == 2 and done.err.startswith(f"blip2: {part} is an input") and done.err.count("\n") == 2
    assert typed("embed", SCENES, "--features", "itc", "--out", "arrays", "--format", "npy").code == 0
    metadata = next(Path("arrays/metadata").glob("*.parquet"))
    done = typed("search", "arrays", TEXTS[0], "--out", metadata, "--overwrite")
    assert done.code == 2 and done.err.startswith(f"blip2: {metadata} is an input")
