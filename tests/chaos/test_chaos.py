"""The short form of `make chaos`."""

import os
import subprocess
import sys
from pathlib import Path

from tests.chaos.chaos import OUTPUTS


def test_runs_killed_at_random_end_as_if_they_had_not_been() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.chaos.chaos", "--rounds", "14", "--rows", "60"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    table = [line.strip("| ").split(" | ") for line in ran.stdout.splitlines() if line.startswith("|")][2:]
    assert [int(killed) for _, killed, *_ in table] == [1] * len(OUTPUTS)
    assert any(int(refused) for *_, refused in table)
    assert any(int(early) < int(killed) for _, killed, early, *_ in table), "some were killed behind a commit"
