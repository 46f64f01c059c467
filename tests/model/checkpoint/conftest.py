"""Copies of the small checkpoints, for tests that change them."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def opt(opt_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint, to be broken."""
    return shutil.copytree(opt_checkpoint, tmp_path / "opt")


@pytest.fixture
def t5(t5_checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(t5_checkpoint, tmp_path / "t5")


@pytest.fixture
def retrieval(retrieval_checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(retrieval_checkpoint, tmp_path / "retrieval")
