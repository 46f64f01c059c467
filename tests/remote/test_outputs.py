"""Folders of shards in an S3 bucket."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from blip2cli.host import retries
from blip2cli.outputs.remote import RemoteShards
from tests.conftest import Typed

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
OUT = "s3://bucket/sub/out"
WORDS = ("caption", "list.csv", "--shard-size", 3, "--batch-size", 2, "--workers", 0)
Run = Callable[..., Typed]


class Killed(BaseException):
    """What ends a run as SIGKILL does: nothing catches it on its way."""


@pytest.fixture(autouse=True)
def listed(tmp_path: Path) -> None:
    """A manifest of good images, and at its end one that is not there."""
    paths = "".join(f"{path}\n" for path in sorted(EXAMPLES.rglob("*.png")))
    (tmp_path / "list.csv").write_text(f"image\n{paths}x.png\n")


def contents(s3: Any) -> dict[str, Any]:
    s3.invalidate_cache()
    found = {name.rpartition("/")[2]: s3.cat_file(name) for name in s3.find("bucket/sub/out")}
    return {name: pq.read_table(io.BytesIO(data)).to_pylist() for name, data in found.items()}


def local(folder: str = "whole") -> dict[str, Any]:
    return {path.name: pq.read_table(path).to_pylist() for path in sorted(Path(folder).iterdir())}


def test_shards_in_a_bucket_are_those_of_a_folder(typed: Run, s3: Any) -> None:
    typed(*WORDS, "--out", "whole")
    assert typed(*WORDS, "--out", OUT).code == 3
    assert contents(s3) == local()
    ran = typed(*WORDS, "--out", OUT)
    assert ran.code == 2 and f"{OUT} exists" in ran.err
    assert "0 rows" in typed(*WORDS, "--out", OUT, "--resume").err
    assert typed(*WORDS, "--out", OUT, "--overwrite", "--limit", 4).code == 0
    assert [len(rows) for rows in contents(s3).values()] == [3, 1]
    assert typed(*WORDS, "--out", OUT, "--resume").code == 3
    assert contents(s3) == local()
    ran = typed(*WORDS, "--out", OUT, "--resume", "--seed", 3)
    assert ran.code == 2 and "seed was 0, is 3" in ran.err


@pytest.mark.parametrize("behind", [False, True])
def test_a_run_killed_at_each_upload_ends_with_the_same_shards(
    typed: Run, s3: Any, monkeypatch: pytest.MonkeyPatch, behind: bool
) -> None:
    typed(*WORDS, "--out", "whole")
    copy = RemoteShards._copy

    def dying(ours: Path, theirs: Any) -> None:
        left[0] -= 1
        if behind:
            copy(ours, theirs)
        if left[0] == 0:
            raise Killed
        if not behind:
            copy(ours, theirs)

    for _ in range(8):
        left = [2]
        with monkeypatch.context() as patched:
            patched.setattr(RemoteShards, "_copy", staticmethod(dying))
            try:
                typed(*WORDS, "--out", OUT, "--resume")
            except Killed:
                continue
        break
    assert typed(*WORDS, "--out", OUT, "--resume").code == 3
    assert contents(s3) == local()


def test_arrays_go_to_a_bucket_too(typed: Run, s3: Any) -> None:
    words = ("embed", "list.csv", "--pool", "mean", "--format", "npy")
    assert typed(*words, "--out", OUT).code == 3
    array = np.load(io.BytesIO(s3.cat_file("bucket/sub/out/img_emb/img_emb_00000.npy")), allow_pickle=False)
    typed(*words, "--out", "f")
    assert np.array_equal(array, np.load("f/img_emb/img_emb_00000.npy"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--out", "s3://bucket/o.jsonl"), "s3://bucket/o.jsonl is a file, and remote outputs are folders"),
        (("--out", "s3://bucket"), "s3://bucket is not a folder"),
        (("--out", "gs://bucket/out"), "the package for gs:// is not installed"),
        (("--out", OUT, "--resume", "--retry-errors"), "--retry-errors is not for remote outputs"),
    ],
)
def test_what_is_not_a_remote_output(typed: Run, s3: Any, words: tuple[str, ...], told: str) -> None:
    ran = typed("caption", "list.csv", *words)
    assert ran.code == 2 and told in ran.err and ran.err.count("\n") == 2


def test_a_bucket_that_cannot_be_reached_is_told_in_two_lines(
    typed: Run, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> bool:
        raise RuntimeError("no credentials")

    monkeypatch.setattr(retries, "WAITS", ())
    monkeypatch.setattr(s3, "isdir", refused)
    ran = typed("caption", "list.csv", "--out", OUT)
    assert ran.code == 2 and f"cannot reach {OUT}: RuntimeError: no credentials" in ran.err
    assert ran.err.count("\n") == 2
