"""A folder of shards: cut at the same places whatever happens, and published whole."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.chaos.chaos import contents, write_manifest
from tests.conftest import Typed, rows_of
from tests.outputs.kept import hidden, lines, parts, sign

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
Run = Callable[..., Typed]
WORDS = ("vqa", "m.jsonl", "-p", "what shape is it?", "-p", "is there a circle?", "--dtype", "fp32", "--workers", 0)


def sizes(folder: str) -> dict[str, int]:
    """Rows of each shard, by its name."""
    return {
        path.name: pq.read_metadata(path).num_rows if path.suffix == ".parquet" else path.read_text().count("\n")
        for path in sorted(Path(folder).iterdir())
    }


def test_shards_are_parquet_and_an_image_stays_in_one(typed: Run) -> None:
    write_manifest(Path("m.jsonl"), 12)
    Path("out").mkdir()
    assert typed(*WORDS, "--out", "out", "--shard-size", 7).code == 3
    assert sizes("out") == {f"part-0000{number}.parquet": 8 for number in range(3)}
    table = pq.read_table("out")
    assert table["id"].to_pylist() == [number for number in range(12) for _ in range(2)]
    assert json.loads(table.schema.metadata[b"blip2"])["task"] == "vqa"
    left = {path.name for path in Path().iterdir()}
    assert left == {"m.jsonl", "out", ".out.blip2"}


def test_shards_may_be_json_lines_and_hold_what_a_file_would(typed: Run) -> None:
    write_manifest(Path("m.jsonl"), 10)
    assert typed(*WORDS, "--out", "out", "--format", "jsonl", "--shard-size", 6).code == 3
    assert typed(*WORDS, "--out", "one.jsonl").code == 3
    assert sizes("out") == {"part-00000.jsonl": 6, "part-00001.jsonl": 6, "part-00002.jsonl": 6, "part-00003.jsonl": 2}
    joined = b"".join(path.read_bytes() for path in sorted(Path("out").iterdir()))
    assert joined == Path("one.jsonl").read_bytes()


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_added_input_fills_the_last_shard_first(typed: Run, form: str) -> None:
    for rows in (1, 5, 6, 13):
        Path("m.jsonl").unlink(missing_ok=True)
        write_manifest(Path("m.jsonl"), rows)
        ran = typed(*WORDS, "--out", "out", "--format", form, "--shard-size", 6, "--resume")
        assert ran.code in (0, 3), ran.err
    assert typed(*WORDS, "--out", "whole", "--format", form, "--shard-size", 6).code == 3
    assert contents(Path("out")) == contents(Path("whole"))


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_shard_that_was_not_published_is_so_when_resumed(typed: Run, form: str) -> None:
    write_manifest(Path("m.jsonl"), 9)
    words = (*WORDS, "--out", "out", "--format", form, "--shard-size", 6)
    assert typed(*words).code == 3
    whole = contents(Path("out"))
    parts("out").mkdir()
    shutil.move(f"out/part-00002.{form}", parts("out"))
    hidden("out").write_bytes(b"".join(lines(hidden("out"))[:-1]))
    assert typed(*words, "--resume").code == 3
    assert contents(Path("out")) == whole and not parts("out").exists()


def test_a_full_shard_that_was_not_closed_is_so_when_resumed(typed: Run) -> None:
    write_manifest(Path("m.jsonl"), 9)
    words = (*WORDS, "--out", "out", "--format", "jsonl", "--shard-size", 6)
    assert typed(*words, "--commit-every", 0, "--batch-size", 1).code == 3
    whole = contents(Path("out"))
    records = [json.loads(line) for line in lines(hidden("out"))]
    at = next(
        at
        for at, record in enumerate(records)
        if record.get("state", {}).get("shard") == 1 and record["state"]["whole"]
    )
    records[at]["state"]["whole"] = False
    sign(hidden("out"), records[: at + 1])
    parts("out").mkdir()
    shutil.move("out/part-00001.jsonl", parts("out"))
    Path("out/part-00002.jsonl").unlink()
    assert typed(*words, "--resume").code == 3
    assert contents(Path("out")) == whole


def test_a_shard_that_is_gone_is_missed(typed: Run) -> None:
    write_manifest(Path("m.jsonl"), 9)
    assert typed(*WORDS, "--out", "out", "--shard-size", 6).code == 3
    Path("out/part-00001.parquet").unlink()
    ran = typed(*WORDS, "--out", "out", "--shard-size", 6, "--resume")
    assert ran.code == 2
    assert ran.err == "blip2: out cannot be resumed: out/part-00001.parquet is gone\n       Use --overwrite.\n"


def test_another_shard_size_or_format_is_refused_by_resume(typed: Run) -> None:
    write_manifest(Path("m.jsonl"), 3)
    assert typed(*WORDS, "--out", "out").code in (0, 3)
    ran = typed(*WORDS, "--out", "out", "--resume", "--shard-size", 5)
    assert ran.code == 2 and "shard_size was 10000, is 5" in ran.err
    ran = typed(*WORDS, "--out", "out", "--resume", "--format", "jsonl")
    assert ran.code == 2 and ran.err.startswith("blip2: out holds other files, such as part-00000.parquet")


def test_a_folder_is_replaced_only_when_asked_and_only_its_shards(typed: Run) -> None:
    write_manifest(Path("m.jsonl"), 4)
    words = (*WORDS, "--out", "out", "--shard-size", 2)
    assert typed(*words).code == 3
    ran = typed(*words)
    assert ran.code == 2 and ran.err.startswith("blip2: out exists\n")
    assert typed(*WORDS, "--out", "out", "--overwrite", "--limit", 1).code == 0
    assert sizes("out") == {"part-00000.parquet": 2}
    Path("out/notes.txt").write_text("mine")
    assert typed(*words, "--overwrite").code == 2
    assert Path("out/notes.txt").read_text() == "mine" and sizes("out")["part-00000.parquet"] == 2


def test_no_rows_make_one_empty_shard(typed: Run) -> None:
    Path("m.jsonl").write_text('{"image": "a.png"}\n')
    assert typed("caption", "m.jsonl", "--out", "out", "--format", "jsonl").code == 3
    assert [row["error"][:7] for row in rows_of(Path("out/part-00000.jsonl").read_text())] == ["missing"]
