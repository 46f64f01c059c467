"""Data sets as Hugging Face's tools write them, Arrow files, and where a manifest's image paths start from."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blip2cli.errors import Blip2Error, UsageError
from blip2cli.inputs import ColumnChoice, Sources, open_source
from blip2cli.inputs.arrow import ArrowManifest
from blip2cli.inputs.columns import ManifestColumns, choose_columns
from blip2cli.records import ImageRef, Row, RowError
from tests.conftest import Typed

os.environ["HF_HUB_OFFLINE"] = "1"
import datasets

datasets.disable_progress_bars()

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
RED, BLUE = (EXAMPLES / f"{colour}-circle.png" for colour in ("red", "blue"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def source(name: str, **columns: Any) -> Sources:
    return open_source([name], ColumnChoice(**columns))


def names(name: str, **columns: Any) -> list[str]:
    """The names of an input's rows; what is read from any place on must be the rest of them."""
    opened = source(name, **columns)
    found = [row.name for row in opened.rows()]
    for start in range(1, len(found) + 1):
        rest = opened.rows(start, found[start - 1])
        assert [(row.index, row.name) for row in rest] == list(enumerate(found))[start:]
    assert opened.count() == len(found)
    return found


def touch(*paths: str) -> None:
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def lines(path: str, *records: Any) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(json.dumps(record) + "\n" for record in records))


def photos(number: int = 5) -> "datasets.Dataset":
    """A data set of images that are told apart by their paths, with a class and a list."""
    pictures = [{"bytes": f"image {at}".encode(), "path": f"{at}.png"} for at in range(number)]
    columns = {
        "image": pictures,
        "label": [at % 2 for at in range(number)],
        "tags": [["a"] * at for at in range(number)],
    }
    features = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=["no", "yes"]),
        "tags": datasets.List(datasets.Value("string")),
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


# Arrow files


def write_stream(path: str, table: pa.Table, rows: int | None = None, **options: Any) -> None:
    with pa.ipc.new_stream(path, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as file:
        file.write_table(table, rows)


TABLE = pa.table(
    {
        "id": pa.array(range(700), pa.int16()),
        "image": [f"{number}.png" for number in range(700)],
        "kind": pa.array(["a", "b"] * 350).dictionary_encode(),
    }
)

WRITERS: dict[str, Callable[[str], None]] = {
    "stream of one batch": lambda path: write_stream(path, TABLE),
    "stream": lambda path: write_stream(path, TABLE, 100),
    "compressed stream": lambda path: write_stream(path, TABLE, 300, compression="zstd"),
    "feather": lambda path: feather.write_feather(TABLE, path, chunksize=150),
}


@pytest.mark.parametrize("written", WRITERS)
@pytest.mark.parametrize("suffix", ["arrow", "feather", "ipc"])
def test_arrow_files_are_told_apart_by_what_they_hold_and_read_from_any_row(written: str, suffix: str) -> None:
    WRITERS[written](f"m.{suffix}")
    opened = source(f"m.{suffix}")
    assert opened.count() == 700
    assert opened.schema() == pa.schema([("id", pa.int16()), ("kind", pa.dictionary(pa.int32(), pa.string()))])
    for start in (0, 1, 99, 100, 127, 128, 299, 300, 650, 699, 700):
        rest = list(opened.rows(start, f"{start - 1}.png"))
        assert [(row.index, row.columns["id"], row.name) for row in rest] == [
            (number, number, f"{number}.png") for number in range(start, 700)
        ]
        assert all(row.columns["kind"] == "ab"[row.index % 2] for row in rest)


def test_what_lies_before_the_first_row_wanted_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    row = ManifestColumns.row
    monkeypatch.setattr(
        ManifestColumns, "row", lambda self, record, number: decoded.append(number) or row(self, record, number)
    )
    write_stream("m.arrow", TABLE, 100)
    assert len(list(source("m.arrow").rows(650, "649.png"))) == 50
    assert decoded == list(range(649, 700))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("rows", [100, 600])
def test_a_file_is_not_kept_in_memory_as_it_is_read(rows: int) -> None:
    image = os.urandom(100_000)
    write_stream("m.arrow", pa.table({"image": [{"bytes": image, "path": None}] * 600}), rows)
    before = resident()
    most = max(resident() for _ in source("m.arrow").rows())
    assert Path("m.arrow").stat().st_size > 60_000_000
    assert most - before < 30_000_000


def resident() -> int:
    """Bytes of files that are mapped and in memory."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile"))
    return int(line.split()[1]) * 1024


def test_an_arrow_stream_cut_short_stops_the_run_and_says_where() -> None:
    write_stream("m.arrow", TABLE, 100)
    data = Path("m.arrow").read_bytes()
    Path("m.arrow").write_bytes(data[: len(data) // 2])
    manifest = ArrowManifest("m.arrow", ColumnChoice())
    with pytest.raises(Blip2Error, match=r"m\.arrow is damaged after row \d00: [^\n]+$"):
        list(manifest.rows())
    with pytest.raises(Blip2Error, match=r"m\.arrow is damaged after row \d00: [^\n]+$"):
        manifest.count()


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.floats(0, 1), at=st.floats(0, 1), value=st.integers(0, 255), way=st.sampled_from(("cut", "set", "feather"))
)
def test_arrow_files_that_were_tampered_with(tmp_path: Path, cut: float, at: float, value: int, way: str) -> None:
    path = tmp_path / "m.arrow"
    table = pa.table({"image": [f"{number}.png" for number in range(50)], "id": range(50), "x": [[1], []] * 25})
    if way == "feather":
        feather.write_feather(table, path, compression="uncompressed")
    else:
        write_stream(str(path), table, 20)
    data = bytearray(path.read_bytes())
    if way == "cut":
        data = data[: int(cut * len(data))]
    else:
        data[int(at * (len(data) - 1))] = value
    path.write_bytes(data)
    try:
        opened = source(str(path))
        assert opened.count() == len(list(opened.rows()))
        opened.schema()
    except Blip2Error as error:
        assert error.message and "\n" not in error.message + error.hint


# save_to_disk


def test_a_saved_data_set_is_read_in_its_order() -> None:
    photos().save_to_disk("saved", num_shards=2)
    Path("saved/cache-1234.arrow").write_bytes(Path("saved/data-00000-of-00002.arrow").read_bytes())
    assert names("saved") == names("saved/") == [f"{number}.png" for number in range(5)]
    rows = list(source("saved").rows())
    assert [row.image for row in rows] == [ImageRef(data=f"image {number}".encode()) for number in range(5)]
    assert [dict(row.columns) for row in rows][2] == {"label": 0, "tags": ["a", "a"]}


def test_the_splits_of_a_saved_dict_are_read_in_its_order() -> None:
    parts = photos()
    datasets.DatasetDict({"train": parts.select([3, 1]), "test": parts.select([4])}).save_to_disk("saved")
    assert names("saved") == ["3.png", "1.png", "4.png"], "datasets flattens what select and shuffle leave"
    assert names("saved/test") == ["4.png"]


def test_images_without_a_path_are_named_after_their_shard() -> None:
    table = pa.table({"image": [{"bytes": b"1", "path": None}]})
    write_stream("m.arrow", table)
    assert names("m.arrow") == ["m.arrow#0"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "state.json",
            '{"_data_files": [], "_indices_data_files": [{"filename": "indices.arrow"}]}',
            "table of indices",
        ),
        ("state.json", "{", "saved/state.json is not what save_to_disk writes"),
        ("state.json", '{"_data_files": [{"filename": "gone.arrow"}]}', "cannot read saved/gone.arrow: No such file"),
        ("dataset_dict.json", "[]", "saved/dataset_dict.json is not what"),
        ("dataset_dict.json", '{"splits": ["train"]}', "cannot read saved/train/state.json: No such file"),
    ],
)
def test_a_saved_data_set_that_cannot_be_read_as_it_is(file: str, text: str, message: str) -> None:
    photos(1).save_to_disk("saved")
    Path("saved", file).write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        source("saved")
    assert error.value.hint


def test_a_saved_data_set_is_captioned_and_its_columns_keep_their_types(typed: Callable[..., Typed]) -> None:
    data = datasets.Dataset.from_dict({"image": [str(RED), str(BLUE)], "id": [1, 2]})
    data = data.cast_column("image", datasets.Image()).cast_column("id", datasets.Value("uint8"))
    data.save_to_disk("saved")
    data.to_parquet("hub/data/train-00000-of-00001.parquet")
    for folder in ("saved", "hub"):
        assert typed("caption", folder, "--out", "o.parquet", "--overwrite").code == 0
        written = pq.read_table("o.parquet")
        assert written["caption"].to_pylist() == ["a red circle", "a blue circle"]
        assert [Path(name).name for name in written["image"].to_pylist()] == [RED.name, BLUE.name]
        assert written.schema.field("id").type == pa.uint8()


# Folders of tables


def test_a_folder_of_tables_is_those_tables_by_path() -> None:
    for part in ("data/train-00000-of-00002", "data/train-00001-of-00002", "data/test-00000-of-00001"):
        touch(f"hub/{part}.parquet")
        pq.write_table(pa.table({"image": [f"{part}.png"]}), f"hub/{part}.parquet")
    lines("hub/a.jsonl", {"image": "a.png"})
    touch("hub/README.md", "hub/dataset_infos.json", "hub/cache-01.arrow", "hub/.cache/x.parquet", "hub/.y.csv")
    shards = [f"data/{part}.png" for part in ("test-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002")]
    assert names("hub") == names("./hub") == ["a.png", *shards]
    assert names("h*") == ["a.png", *shards]


def test_a_table_without_rows_among_others() -> None:
    Path("hub").mkdir()
    for name, images in (("a", []), ("b", ["1.png", "2.png"]), ("c", []), ("d", ["3.png"]), ("e", [])):
        pq.write_table(pa.table({"image": pa.array(images, pa.string())}), f"hub/{name}.parquet")
    assert names("hub") == ["1.png", "2.png", "3.png"]


def test_a_folder_with_an_image_anywhere_is_its_images() -> None:
    lines("p/a.jsonl", {"image": "gone.png"})
    touch("p/deep/down/x.png")
    assert names("p") == ["p/deep/down/x.png"]


def test_json_is_read_only_where_it_is_named() -> None:
    touch("p/a.jpg")
    Path("p/a.json").write_text('{"width": 3}')
    assert names("p/*") == ["p/a.jpg"]
    Path("p/a.jpg").unlink()
    with pytest.raises(UsageError, match="no images found in p"):
        source("p")
    Path("p/a.json").write_text('[{"image": "b.jpg"}]')
    assert names("p/*.json") == ["b.jpg"]


# imagefolder


def test_metadata_comes_first_in_its_order_and_then_the_images_it_does_not_name() -> None:
    touch("p/b.jpg", "p/a.jpg", "p/sub/c.jpg", "p/z.jpg")
    lines("p/metadata.jsonl", {"file_name": "sub/c.jpg", "n": 1}, {"file_name": "./b.jpg", "n": 2}, {"n": 3})
    assert names("p") == ["p/sub/c.jpg", "p/./b.jpg", "p/metadata.jsonl#2", "p/a.jpg", "p/z.jpg"]
    rows = list(source("p").rows())
    assert [row.columns.get("n") for row in rows] == [1, 2, 3, None, None]
    assert [row.error and str(row.error) for row in rows[2:]] == ["missing: column file_name is empty", None, None]
    assert rows[0].image == ImageRef(path="p/sub/c.jpg")
    assert names("p/metadata.jsonl") == ["sub/c.jpg", "./b.jpg", "p/metadata.jsonl#2"], "by name it is a manifest"


def test_every_split_has_its_metadata() -> None:
    touch("p/train/a.jpg", "p/train/b.jpg", "p/test/a.jpg")
    Path("p/train/metadata.csv").write_text("file_name,path,text\nb.jpg,x,y\n")
    pq.write_table(pa.table({"file_name": ["a.jpg"], "text": ["z"]}), "p/test/metadata.parquet")
    assert names("p") == ["p/test/a.jpg", "p/train/b.jpg", "p/train/a.jpg"]
    assert source("p").schema() == pa.schema([("text", pa.string()), ("path", pa.string())])
    touch("q/deep/down/metadata.csv", "q/a.jpg")
    assert names("q") == ["q/a.jpg"]


def test_the_column_of_an_imagefolder() -> None:
    touch("p/a.jpg", "p/b.jpg")
    lines("p/metadata.jsonl", {"left_file_name": "a.jpg", "image": 1})
    assert names("p") == ["p/a.jpg", "p/b.jpg"]
    lines("p/metadata.jsonl", {"left_file_name": "b.jpg", "right_file_name": "a.jpg"})
    with pytest.raises(UsageError, match=r"p/metadata\.jsonl has no column file_name") as error:
        source("p")
    assert "It has: left_file_name, right_file_name." in error.value.hint
    assert names("p", image="left_file_name") == ["p/b.jpg", "p/a.jpg"]
    touch("p/metadata.csv")
    with pytest.raises(UsageError, match=r"p has metadata\.csv and metadata\.jsonl"):
        source("p")


def test_what_hugging_face_reads_of_an_imagefolder_is_read_here(typed: Callable[..., Typed]) -> None:
    for split, image in (("train", RED), ("test", BLUE)):
        touch(f"p/{split}/x.png")
        Path(f"p/{split}/x.png").write_bytes(image.read_bytes())
        lines(f"p/{split}/metadata.jsonl", {"file_name": "x.png", "question": "what shape is it?", "id": split})
    theirs = datasets.load_dataset("imagefolder", data_dir="p", cache_dir="cache")
    ours = {row.columns["id"]: row for row in source("p").rows()}
    assert {split: part[0]["id"] for split, part in theirs.items()} == {row: row for row in ours}
    Path("p/train/y.png").write_bytes(RED.read_bytes())
    answered = typed("vqa", "p")
    assert [row["image"] for row in answered.rows] == ["p/test/x.png", "p/train/x.png", "p/train/y.png"]
    assert [row["question"] for row in answered.rows] == ["what shape is it?"] * 2 + [None]
    assert [row["error"] for row in answered.rows][2] == "missing: column question is empty"


# Where paths start, and URLs


def place(cell: str, manifest: str = "data/m.csv", **columns: Any) -> Row:
    return choose_columns(manifest, ["image"], ColumnChoice(**columns)).row({"image": cell}, 0)


@pytest.mark.parametrize(
    ("manifest", "root", "cell", "path"),
    [
        ("data/m.csv", None, "a.jpg", "data/a.jpg"),
        ("data/m.csv", "imgs", "a.jpg", "imgs/a.jpg"),
        ("data/m.csv", "imgs/", "x/a.jpg", "imgs/x/a.jpg"),
        ("data/m.csv", "imgs", "/b/a.jpg", "/b/a.jpg"),
        ("data/m.csv", "imgs", "../a.jpg", "imgs/../a.jpg"),
        ("data/m.csv", "s3://bucket/imgs/", "x/a.jpg", "s3://bucket/imgs/x/a.jpg"),
        ("data/m.csv", "s3://bucket/imgs", "/b/a.jpg", "/b/a.jpg"),
        ("s3://bucket/data/m.csv", None, "x/a.jpg", "s3://bucket/data/x/a.jpg"),
        ("s3://bucket/data/m.csv", None, "../x/./a.jpg", "s3://bucket/x/a.jpg"),
        ("s3://bucket/data/m.csv", None, "../../../a.jpg", "s3://bucket/a.jpg"),
        ("https://host/data/m.csv?token=a/b", None, "a.jpg", "https://host/data/a.jpg"),
        ("https://host/data/m.csv", "imgs", "a.jpg", "imgs/a.jpg"),
    ],
)
def test_where_a_path_starts(manifest: str, root: str | None, cell: str, path: str) -> None:
    row = place(cell, manifest, root=root)
    assert (row.name, row.image, row.error) == (cell, ImageRef(path=path), None)


@pytest.mark.parametrize("cell", ["/etc/passwd", "file:///etc/passwd"])
def test_a_remote_manifest_names_no_local_file(cell: str) -> None:
    row = place(cell, "https://host/m.csv", allow_remote=True)
    assert (row.image, row.error) == (None, RowError("unsupported", "a local path in a remote manifest"))
    assert place("x/../../y.jpg", "https://host/m.csv", root="imgs").error == row.error


def test_urls_are_fetched_only_when_allowed() -> None:
    for url in ("http://host/a.jpg", "HTTPS://host/a.jpg", "s3://b/a.jpg", "gs://b/a.jpg", "hf://datasets/x/y/a.jpg"):
        refused, allowed = place(url), place(url, allow_remote=True)
        assert (refused.name, refused.image) == (url, None)
        assert str(refused.error) == "unsupported: a URL in a manifest; --allow-remote fetches it"
        assert (allowed.name, allowed.image, allowed.error) == (url, ImageRef(url=url), None)
    for url in ("file:///a.jpg", "ftp://host/a.jpg", "memory://a.jpg", "zip://a.jpg::http://host/x.zip"):
        assert place(url, allow_remote=True).error == place(url).error
        assert str(place(url).error) == f"unsupported: {url.partition(':')[0]} URLs in a manifest are not fetched"


def test_a_column_of_urls_is_looked_for_only_when_they_are_fetched() -> None:
    lines("m.jsonl", {"url": "http://host/a.jpg", "caption": "x"})
    with pytest.raises(UsageError, match="has no image column") as error:
        source("m.jsonl")
    assert "--allow-remote" in error.value.hint
    assert names("m.jsonl", allow_remote=True) == ["http://host/a.jpg"]
    lines("m.jsonl", {"url": "http://host/a.jpg", "file": "a.jpg"})
    assert names("m.jsonl", allow_remote=True) == ["a.jpg"]


def test_image_root_is_a_folder(typed: Callable[..., Typed]) -> None:
    lines("data/m.jsonl", {"image": "red-circle.png"})
    assert [row["caption"] for row in typed("caption", "data/m.jsonl", "--image-root", EXAMPLES).rows] == [
        "a red circle"
    ]
    refused = typed("caption", "data/m.jsonl", "--image-root", "nowhere")
    assert refused.code == 2 and refused.err.startswith("blip2: no such folder: --image-root nowhere\n")
