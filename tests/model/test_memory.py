"""The automatic batch size follows the memory that is free."""

import math
from pathlib import Path
from typing import Literal

import pytest
import torch

from blip2cli.model import memory
from blip2cli.model.blip2 import Blip2Model
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.checkpoint.size import weight_shapes
from blip2cli.settings import ModelSettings
from tests.conftest import INT8

CPU = torch.device("cpu")


@pytest.fixture
def model(opt_checkpoint: Path) -> Blip2Model:
    return Blip2Model(find_checkpoint(ModelSettings(model=str(opt_checkpoint), dtype="fp32", device="cpu")))


@pytest.mark.parametrize(("images", "expected"), [(0.5, 1), (1, 1), (3.9, 2), (4, 4), (63, 32), (1000, 64)])
def test_the_batch_is_the_largest_power_of_two_that_fits(
    model: Blip2Model, monkeypatch: pytest.MonkeyPatch, images: float, expected: int
) -> None:
    each = memory.bytes_per_image(model.model.config, 4)
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(images * each / memory.SHARE) + 1)
    assert memory.automatic_batch_size(model.model, [CPU], memory.SMALL_MODEL - 1) == expected


def test_large_models_get_small_batches_on_a_cpu(model: Blip2Model) -> None:
    assert memory.automatic_batch_size(model.model, [CPU], memory.SMALL_MODEL) == memory.LARGEST_BATCH_ELSEWHERE


@pytest.mark.parametrize("dtype", ["fp32", "bf16", INT8])
def test_a_model_is_as_large_in_each_precision(
    opt_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, dtype: Literal["fp32", "bf16", "int8"]
) -> None:
    checkpoint = find_checkpoint(ModelSettings(model=str(opt_checkpoint), dtype=dtype, device="cpu"))
    weights = sum(math.prod(shape) for shape in weight_shapes(opt_checkpoint).values())
    monkeypatch.setattr(memory, "SMALL_MODEL", weights)
    assert Blip2Model(checkpoint).batch_size == memory.LARGEST_BATCH_ELSEWHERE


def test_the_estimate_counts_the_cache_of_both_language_models(opt_checkpoint: Path, t5_checkpoint: Path) -> None:
    for checkpoint in (opt_checkpoint, t5_checkpoint):
        config = find_checkpoint(ModelSettings(model=str(checkpoint), dtype="fp32", device="cpu")).config
        half, full = memory.bytes_per_image(config, 2), memory.bytes_per_image(config, 4)
        assert full == 2 * half > 0
        assert memory.bytes_per_image(config, 2, recorded=True) > half, "recordings keep memory"
        assert memory.bytes_per_image(config, 2, writes=False, recorded=True) < half
