"""The replicas of `make scale` say what the driver is to hear, without a cluster."""

from pathlib import Path
from typing import Any

import pytest

from blip2cli.run.engines.ray_replica import Order, Said
from blip2cli.run.engines.stretches import Stretches
from blip2cli.settings import GenerationSettings, InputSettings, Job, ModelSettings, OutputSettings
from blip2cli.tasks import open_task
from blip2cli.tasks.caption import CaptionOptions
from tests.run.engines import simulation


def test_null_replicas_say_that_every_row_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "FILE", 100)
    simulation.write_manifest(tmp_path / "m.parquet")
    options, inputs = CaptionOptions(), InputSettings((str(tmp_path / "m.parquet"),) * 3)
    job = Job("caption", options, inputs, OutputSettings(), ModelSettings(model="tiny"), GenerationSettings())
    target: Any = None
    replica = simulation.NullReplica(Order(job, open_task(job), target, Stretches(300, 70), 1))
    monkeypatch.setattr("blip2cli.run.engines.ray_replica.attempts_at", lambda *_: 0)
    said = [Said.unpacked(one["said"][0]) for one in replica({"place": range(5)})]
    assert sum(one.images for one in said) == sum(one.rows for one in said) == 300
    done = [one for one in said if one.finished]
    assert [one.number for one in done] == [0, 1, 2, 3, 4] and not any(one.kinds or one.failure for one in said)
    assert (
        done[0].last == "images/0000/photograph-0000069.jpg" and done[-1].last == "images/0000/photograph-0000099.jpg"
    )
