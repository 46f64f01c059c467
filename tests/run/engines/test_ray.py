"""`--engine ray` on a cluster of two nodes on this machine: what it writes, and what is left when something dies."""

import json
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2cli.outputs import FORMATS
from blip2cli.outputs.layout import Layout
from blip2cli.outputs.target import Target
from blip2cli.records import Column, Result, Row, RowError
from blip2cli.run.engines.ray_replica import MOST_ATTEMPTS, Replica, ShardProgress
from blip2cli.run.engines.stretches import Stretches
from blip2cli.run.pipeline import PipelineStats
from tests.conftest import Typed
from tests.run.engines.cluster import BLIP2, ENV, Cluster, committed, ended, files, same, started, wait_for

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"


@pytest.fixture(params=[(2,)])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A node with two cores, or nodes of as many as the test is parametrized with; for tests marked cluster."""
    with started(*request.param) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 1,800 rows over the sample images, one of them missing."""
    manifest = tmp_path_factory.mktemp("many") / "many.jsonl"
    images = sorted(EXAMPLES.glob("*.png"))
    names = [str(images[number % len(images)]) if number != 333 else "gone.png" for number in range(1800)]
    manifest.write_text("".join(json.dumps({"image": name, "n": n}) + "\n" for n, name in enumerate(names)))
    return manifest


@pytest.fixture(scope="module")
def expected(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its captions as one process writes them."""
    out = tmp_path_factory.mktemp("expected") / "shards"
    done = [*BLIP2, "caption", str(many), "--model", "tiny", "--out", str(out), "--shard-size", "30", "-q"]
    assert subprocess.run(done, env=ENV).returncode == 3
    return out


@pytest.mark.cluster
def test_a_cluster_writes_what_one_process_writes(cluster: Cluster, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(EXAMPLES, images)
    (images / "bad.png").write_text("no image")
    asked = ["vqa", images, "--prompt", "what color is the shape?", "--prompt", "how many?", "--scores"]
    asked += ["--format", "jsonl"]
    done = cluster.run(*asked, "--out", tmp_path / "ray", "--shard-size", 5, "--summary", tmp_path / "summary.json")
    assert done.returncode == 3, done.stderr
    loading, *counted, closing, errors = done.stderr.splitlines()
    assert loading == "Loading Ray" and "Loading tiny" in counted, done.stderr
    assert closing.startswith("26 rows to") and errors == "  2 unsupported: not an image in a known format"
    alone = [*BLIP2, *map(str, asked), "--model", "tiny", "--out", str(tmp_path / "alone"), "-q"]
    assert subprocess.run(alone, env=ENV).returncode == 3
    assert files(tmp_path / "ray") == [f"part-{number:05}.jsonl" for number in range(3)]
    assert lines(tmp_path / "ray") == lines(tmp_path / "alone")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["rows"], summary["images"], summary["errors_by_kind"]) == (26, 13, {"unsupported": 2})
    assert not (tmp_path / ".ray.blip2-parts").exists()

    again = cluster.run(*asked, "--out", tmp_path / "ray", "--shard-size", 5, "--resume")
    assert again.returncode == 3 and "0 rows" in again.stderr, again.stderr
    other = cluster.run(*asked, "--out", tmp_path / "ray", "--shard-size", 6, "--resume")
    assert other.returncode == 2 and "shard_size was 5, is 6" in other.stderr


@pytest.mark.cluster
def test_archives_are_counted_first(cluster: Cluster, tmp_path: Path) -> None:
    images = sorted(EXAMPLES.glob("*.png"))
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for image in images[number * 5 : number * 5 + 5]:
                tar.add(image, image.name)
    tars = f"{tmp_path}/{{0..1}}.tar"
    done = cluster.run("embed", tars, "--out", tmp_path / "ray", "--shard-size", 4)
    assert done.returncode == 0, done.stderr
    alone = [*BLIP2, "embed", tars, "--model", "tiny", "--out", str(tmp_path / "alone"), "--shard-size", "4", "-q"]
    assert subprocess.run(alone, env=ENV).returncode == 0
    assert pq.read_table(tmp_path / "ray").equals(pq.read_table(tmp_path / "alone"))


@pytest.mark.parametrize("cluster", [(1, 1)], indirect=True)
@pytest.mark.cluster
def test_a_node_that_dies_takes_no_row_with_it(cluster: Cluster, many: Path, expected: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    run = cluster.start("caption", many, "--out", out, "--shard-size", 30, "--limit", 480)
    wait_for(lambda: len(files(out)) >= 3, run)
    assert len(cluster.replicas()) == 2
    cluster.tell("kill")
    assert len(files(out)) < 16, "it was too fast to be caught in the middle"
    told = ended(run)
    assert run.returncode == 3, told
    assert same(out, expected, 16)


@pytest.mark.parametrize("cluster", [(1,)], indirect=True)
@pytest.mark.cluster
def test_a_driver_that_is_killed_is_gone_on_from(cluster: Cluster, many: Path, expected: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    arguments = ("caption", many, "--out", out, "--shard-size", 30, "--limit", 1200)
    for number, how in enumerate((signal.SIGKILL, signal.SIGINT, signal.SIGTERM), 1):
        run = cluster.start(*arguments, "--resume")
        wait_for(lambda number=number: len(committed(out)) >= 3 * number, run)  # type: ignore[misc]
        run.send_signal(how)
        ended(run)
        assert run.returncode == (-how if how == signal.SIGKILL else 130)
        wait_for(lambda: not cluster.replicas())
    kept = {number: (out / f"part-{number:05}.parquet").stat().st_mtime_ns for number in committed(out)}
    assert 9 <= len(kept) < 40, "it was too fast to be caught in the middle"
    done = cluster.run(*arguments, "--resume")
    assert done.returncode == 3, done.stderr
    assert same(out, expected, 40)
    assert kept == {number: (out / f"part-{number:05}.parquet").stat().st_mtime_ns for number in kept}


@pytest.mark.parametrize("cluster", [(1,)], indirect=True)
@pytest.mark.cluster
def test_replicas_are_added_where_there_comes_room(
    cluster: Cluster, many: Path, expected: Path, tmp_path: Path
) -> None:
    out = tmp_path / "shards"
    run = cluster.start("caption", many, "--out", out, "--shard-size", 30, "--replicas", "1-2", "--limit", 480)
    wait_for(lambda: len(files(out)) >= 1, run)
    (first,) = cluster.replicas()
    os.kill(first, signal.SIGSTOP)  # which leaves something to do for the second
    cluster.tell("add 1")
    wait_for(lambda: len(cluster.replicas()) == 2, run)
    os.kill(first, signal.SIGCONT)
    told = ended(run)
    assert run.returncode == 3, told
    assert same(out, expected, 16)


def test_a_shard_that_its_actors_die_of_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("it was tried again")

    target = Target("parquet", FORMATS["parquet"], tmp_path / "shards", shards=True)
    monkeypatch.setattr(Replica, "_shard", never)
    work: Any = SimpleNamespace(plan=SimpleNamespace(target=target), stretches=Stretches(40, 10))
    for attempt in range(MOST_ATTEMPTS):
        (tmp_path / ".shards.blip2-parts" / f"00002-{attempt}").mkdir(parents=True)
    assert list(Replica(work)({"position": [2]})) == []


def test_a_shard_counts_what_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = [
        Result(Row(0, "a.png"), (0.9,)),
        Result(Row(1, "b.png"), (0.1,), left_out=True),
        Result(Row(2, "c.png"), (0.1,), last=False, left_out=True),
        Result(Row(2, "c.png"), (0.8,)),
        Result(Row(3, "d.png"), (None,), RowError("missing", "no such file")),
        Result(Row(4, "e.png"), (0.2,), left_out=True),
    ]
    pipeline = SimpleNamespace(results=lambda rows, stop: iter(results), stats=lambda: PipelineStats({}, 1, 1))
    monkeypatch.setattr(Replica, "_pipeline", pipeline)
    layout = Layout({}, (Column("itm", "number"),), lambda: pa.schema([]), {})
    target = Target("jsonl", FORMATS["jsonl"], tmp_path / "shards", shards=True)
    source = SimpleNamespace(stretch=lambda first, stop: iter(()))
    plan = SimpleNamespace(source=source, layout=layout, target=target)
    work: Any = SimpleNamespace(stretches=Stretches(5, 5), plan=plan)
    reports = [text for packed in Replica(work)({"position": [0]}) for text in packed["report"]]
    shard = ShardProgress.unpacked(reports[-1])
    assert (shard.failure, shard.finished, shard.rows, shard.left_out) == (None, True, 3, 3)
    assert (dict(shard.kinds), shard.last) == ({"missing": 1}, "e.png")
    assert [json.loads(line)["image"] for line in lines(tmp_path / "shards")] == ["a.png", "c.png", "d.png"]


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--out", "o.jsonl"], "writes a folder of shards"),
        ([], "writes a folder of shards"),
        (["--out", "o", "--devices", "cpu:2"], "--devices cannot be used with"),
        (["--out", "o", "--device-map", "auto"], "--device-map cannot be used with"),
        (["--out", "o", "--shard", "1/2"], "--shard cannot be used with"),
        (["--out", "o", "--resume", "--retry-errors"], "--retry-errors cannot be used with"),
        (["--out", "o", "--replicas", "3-2"], "is not a range"),
        (["--out", "o", "--replicas", "many"], "neither a number nor a range"),
        (["--out", "o", "--ray-address", "127.0.0.1:1"], "cannot join the Ray cluster"),
    ],
)
def test_what_a_cluster_cannot_do_is_told(
    arguments: list[str], says: str, typed: Callable[..., Typed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = typed("caption", EXAMPLES, "--engine", "ray", *arguments)
    assert done.code == 2 and says in done.err
    assert len(done.err.splitlines()) == 2


def test_its_options_need_it(typed: Callable[..., Typed]) -> None:
    assert "--replicas needs --engine ray" in typed("caption", EXAMPLES, "--replicas", 2).err


def lines(out: Path) -> list[str]:
    return [line for name in files(out) for line in (out / name).read_text().splitlines()]
