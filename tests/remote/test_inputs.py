"""Inputs in an S3 bucket, by the command line."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import Typed

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CIRCLE = (EXAMPLES / "red-circle.png").read_bytes()


@pytest.fixture
def bucket(s3: Any) -> Any:
    """Images, manifests and an archive."""
    s3.pipe_file("bucket/images/a/circle.png", CIRCLE)
    s3.pipe_file("bucket/images/b.png", b"no image")
    s3.pipe_file("bucket/m.csv", b"image,n\nimages/a/circle.png,1\ngone.png,2\n")
    table = io.BytesIO()
    pq.write_table(pa.table({"image": [CIRCLE], "n": [3]}), table)
    s3.pipe_file("bucket/tables/t.parquet", table.getvalue())
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo("x.png")
        info.size = len(CIRCLE)
        archive.addfile(info, io.BytesIO(CIRCLE))
    s3.pipe_file("bucket/shards/00000.tar", packed.getvalue())
    return s3


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            "s3://bucket/images",
            [("s3://bucket/images/a/circle.png", None), ("s3://bucket/images/b.png", "unsupported")],
        ),
        ("s3://bucket/images/*/*.png", [("s3://bucket/images/a/circle.png", None)]),
        ("s3://bucket/m.csv", [("images/a/circle.png", None), ("gone.png", "missing")]),
        ("s3://bucket/tables", [("s3://bucket/tables/t.parquet#0", None)]),
        ("s3://bucket/shards/{00000..00000}.tar", [("s3://bucket/shards/00000.tar/x.png", None)]),
    ],
)
def test_what_is_in_a_bucket_is_read(
    typed: Callable[..., Typed], bucket: Any, given: str, expected: list[tuple[str, str | None]]
) -> None:
    rows = typed("caption", given).rows
    assert [(row["image"], row["error"] and row["error"].partition(":")[0]) for row in rows] == expected
    assert all(row["caption"] == (None if row["error"] else "a red circle") for row in rows)


def test_workers_read_from_a_bucket_too(typed: Callable[..., Typed], bucket: Any) -> None:
    rows = typed("caption", *["s3://bucket/images"] * 3, "--workers", 2, "--batch-size", 2).rows
    assert [row["caption"] for row in rows] == ["a red circle", None] * 3


@pytest.mark.parametrize(
    "given", ["s3://bucket/gone.csv", "s3://bucket/gone/", "s3://bucket/*.jpg", "s3://nowhere/m.csv"]
)
def test_what_is_not_in_a_bucket_is_told_in_two_lines(typed: Callable[..., Typed], bucket: Any, given: str) -> None:
    ran = typed("caption", given)
    assert ran.code == 2 and given.rstrip("/") in ran.err and len(ran.err.splitlines()) == 2


@pytest.mark.parametrize(
    "given",
    [
        "http://[",
        "http://[/m.csv",
        "http://127.0.0.1:99999/x",
        "HTTP://[/m.csv",
        "s3://",
        "s3://a b/",
        "hf://x",
        "gs://b/a.png",
    ],
)
def test_a_url_that_means_nothing_is_told_in_two_lines(typed: Callable[..., Typed], bucket: Any, given: str) -> None:
    ran = typed("caption", given)
    assert ran.code == 2 and given in ran.err and len(ran.err.splitlines()) == 2
