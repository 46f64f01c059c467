"""The files for clusters: their commands are commands that there are, and what they do with exit codes is right."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from blip2cli.cli import app
from tests.docs.pages import REPOSITORY

CLUSTER = REPOSITORY / "docs" / "cluster"


def check(words: list[str]) -> None:
    """See that `blip2 ...` can be parsed."""
    name, *arguments = words[words.index("blip2") + 1 :]
    get_command(app).commands[name].make_context(name, arguments)  # type: ignore[attr-defined]  # a group


def test_the_kuberay_job_runs_a_command_and_takes_error_rows_for_success(tmp_path: Path) -> None:
    job = yaml.safe_load((CLUSTER / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    command, _, ending = job["spec"]["entrypoint"].partition("||")
    check(shlex.split(command))
    codes = {code: subprocess.run(["sh", "-c", f"(exit {code}) || {ending}"]).returncode for code in (0, 3, 1)}
    assert codes == {0: 0, 3: 0, 1: 1}
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert f"--replicas {group['minReplicas']}-{group['maxReplicas']}" in command


@pytest.mark.parametrize(("code", "ends", "requeued"), [(0, 0, ""), (3, 0, ""), (1, 1, ""), (130, 0, "requeue 7_2\n")])
def test_the_slurm_script_goes_on_when_its_time_was_up(tmp_path: Path, code: int, ends: int, requeued: str) -> None:
    for name, does in (("srun", f'echo "$@" > asked; exit {code}'), ("scontrol", 'echo "$@" > told')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_JOB_ID": "7"}
    done = subprocess.run(["bash", CLUSTER / "slurm.sh"], cwd=tmp_path, env={**slurm, "OUT": str(tmp_path / "out")})
    assert done.returncode == ends
    told = tmp_path / "told"
    assert (told.read_text() if told.exists() else "") == requeued
    asked = shlex.split((tmp_path / "asked").read_text())
    check(asked)
    assert asked[asked.index("--shard") + 1] == "2/16"
