"""`make bench-gpu` as far as it goes without a GPU: its checkpoints, beams on both sides, and what texts depend on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from blip2cli.commands.bench.gpu import same_whatever_is_beside
from blip2cli.commands.bench.material import SMALLEST, save_photos, save_random_checkpoint
from blip2cli.commands.bench.ours import Ours
from blip2cli.commands.bench.reference import ReferenceLoop


@pytest.mark.parametrize("flan_t5", [False, True], ids=["opt", "t5"])
def test_the_smallest_geometry_runs(flan_t5: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_random_checkpoint(tmp_path / "model", replace(SMALLEST, flan_t5=flan_t5))
    photos = save_photos(tmp_path / "photos", 6, (64, 48))
    ours, loop = Ours(folder, "fp32", 2, "cpu"), ReferenceLoop(folder, torch.float32)
    embeds = torch.randn(3, 32, SMALLEST.text_width)
    assert set(ours.decode_beams(list(embeds), 3, 4, 2)) == {0, 1, 2}
    if not flan_t5:
        loop.decode_beams(embeds, 3, 4, 2)
    same_whatever_is_beside(ours, photos, 2)
    assert "in reverse: 6 of 6 texts as before" in capsys.readouterr().out
