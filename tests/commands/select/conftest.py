"""Results in several formats."""

import shutil
from pathlib import Path

import pytest

from tests.commands.select.rows import EXAMPLES, IMAGES, ROWS, write


@pytest.fixture(params=["r.jsonl", "r.csv", "r.parquet"])
def results(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    for name in IMAGES:
        shutil.copy(EXAMPLES / name, tmp_path)
    write(tmp_path / request.param, ROWS)
    return str(request.param)
