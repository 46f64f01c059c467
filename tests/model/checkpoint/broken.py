"""Copies of checkpoints to be broken, and what is said of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from blip2cli.errors import CheckpointError
from blip2cli.model import load_model
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.checkpoint.record import Checkpoint
from blip2cli.settings import ModelSettings


def found(folder: Path, dtype: str = "fp32", **settings: Any) -> Checkpoint:
    return find_checkpoint(ModelSettings(model=str(folder), dtype=dtype, device="cpu", **settings))


def refused(folder: Path, load: bool = False) -> str:
    """The two lines that are said of a checkpoint, as one."""
    with pytest.raises(CheckpointError) as error:
        load_model(found(folder)) if load else found(folder)
    assert error.value.hint and "\n" not in error.value.message
    return f"{error.value.message} | {error.value.hint}"


def change_json(folder: Path, file: str, *path: str, **values: Any) -> None:
    """Change an object in a JSON file; None takes a name away."""
    saved = json.loads((folder / file).read_text())
    part = saved
    for name in path:
        part = part[name]
    part.update(values)
    for name in [name for name, value in values.items() if value is None]:
        del part[name]
    (folder / file).write_text(json.dumps(saved))
