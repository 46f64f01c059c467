"""The replicas of `make scale` report what the driver is to hear, without a cluster."""

from pathlib import Path

import pytest

from blip2cli.run.engines.ray_replica import ShardProgress, ShardWork
from blip2cli.run.engines.stretches import Stretches
from blip2cli.run.plan import make_plan
from blip2cli.settings import GenerationSettings, InputSettings, Job, ModelSettings, OutputSettings
from blip2cli.tasks.caption import CaptionOptions
from tests.run.engines import simulation


def test_null_replicas_say_that_every_row_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "FILE", 100)
    simulation.write_manifest(tmp_path / "m.parquet")
    options, inputs = CaptionOptions(), InputSettings((str(tmp_path / "m.parquet"),) * 3)
    job = Job("caption", options, inputs, OutputSettings(), ModelSettings(model="tiny"), GenerationSettings())
    replica = simulation.NullReplica(ShardWork(make_plan(job), Stretches(300, 70), 1))
    monkeypatch.setattr("blip2cli.run.engines.ray_replica.attempts_at", lambda *_: 0)
    reports = [ShardProgress.unpacked(packed["report"][0]) for packed in replica({"position": range(5)})]
    assert sum(report.images for report in reports) == sum(report.rows for report in reports) == 300
    done = [report for report in reports if report.finished]
    assert [report.number for report in done] == [0, 1, 2, 3, 4]
    assert not any(report.kinds or report.failure for report in reports)
    assert (
        done[0].last == "images/0000/photograph-0000069.jpg" and done[-1].last == "images/0000/photograph-0000099.jpg"
    )
