"""What every engine promises, for all that are registered: the same shards, whichever of them made the rows."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from blip2cli.run.engines import ENGINES
from tests.chaos.chaos import contents, write_manifest
from tests.conftest import Typed

ROWS = 50

WITH: dict[str, tuple[str, ...]] = {
    "local": (),
    "local, replicas": ("--devices", "cpu:2"),
    "ray": ("--engine", "ray", "--ray-address", "local", "--replicas", "1", "--cpus-per-replica", "1"),
}
"""Engine → the options that choose it; --workers 0 and one core each, as the rows are few."""


def test_every_engine_is_tried() -> None:
    assert {name.partition(",")[0] for name in WITH} == set(ENGINES), "say in WITH how the new engine is chosen"


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize("engine", ["local, replicas", pytest.param("ray", marks=pytest.mark.cluster)])
def test_every_engine_writes_the_same_shards(
    engine: str, typed: Callable[..., Typed], blip2: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    write_manifest(tmp_path / "m.jsonl", ROWS)
    asked = ("vqa", "m.jsonl", "-p", "what shape is it?", "--model", "tiny", "--dtype", "fp32")
    shards = ("--shard-size", 20, "--format", "jsonl", "--workers", 0, "--batch-size", 8)
    assert typed(*asked, *shards, "--out", "local").code == 3
    if engine == "ray":
        assert blip2(*asked, *shards, "--out", "other", *WITH[engine]).returncode == 3
    else:
        assert typed(*asked, *shards, "--out", "other", *WITH[engine]).code == 3
    assert contents(tmp_path / "other") == contents(tmp_path / "local")
