"""Decoding by recorded steps, which have all slots and all columns, writes the same texts."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from blip2cli.model.blip2 import Blip2Model
from blip2cli.model.checkpoint import find
from blip2cli.model.decoding.graphs import StepGraph
from blip2cli.model.decoding.loop import Decoder
from blip2cli.model.decoding.requests import EncodedImage, Request
from blip2cli.model.decoding.sampling import Sampler
from blip2cli.settings import GenerationSettings, ModelSettings

SETTINGS = GenerationSettings()


def requests_of(model: Blip2Model) -> list[Request]:
    """Of prompts from 1 to 67 tokens and texts from 1 to 40, so that the cache grows while sequences stand in it."""
    torch.manual_seed(0)
    width, word = model.model.language_projection.out_features, model.prompt_ids("photo")[-1]
    requests = []
    for number in range(12):
        image = EncodedImage(torch.randn(model.num_query_tokens, width).to(model.encoder.device))
        prompt = (*model.prompt_ids("a"), *[word] * (6 * number))
        requests.append(Request(number, image, prompt, (1 + 3 * number, 1 + 3 * number)))
    return requests


def written(model: Blip2Model, graphs: bool) -> dict[int, tuple[int, ...]]:
    make = model.family.decoder_class()
    decoder = Decoder(make(model.model.language_model, 4, graphs=graphs), Sampler(SETTINGS, model.end_ids))
    with torch.inference_mode():
        return {done.key: done.token_ids for done in decoder.decode(iter(requests_of(model)))}


@pytest.mark.parametrize("family", ["opt", "t5"])
def test_recorded_steps_write_the_same(
    family: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint: Path = request.getfixturevalue(f"{family}_checkpoint")
    model = Blip2Model(find(ModelSettings(model=str(checkpoint), dtype="fp32", device="cpu")))
    recordings = []

    def record(self: StepGraph, forward: Callable[..., torch.Tensor]) -> None:
        recordings.append(self.lengths.max().item())
        for _ in range(3):  # as the warm-up does: what it writes must harm nobody
            forward(self.tokens, self.lengths)
        self.forward = forward

    monkeypatch.setattr(StepGraph, "record", record)
    monkeypatch.setattr(StepGraph, "replay", lambda self: self.forward(self.tokens, self.lengths))
    assert written(model, graphs=True) == written(model, graphs=False)
    assert len(recordings) > 1, "the cache grew"


@pytest.mark.cuda
@pytest.mark.parametrize("family", ["opt", "t5"])
def test_cuda_graphs_write_the_same(family: str, request: pytest.FixtureRequest) -> None:
    checkpoint: Path = request.getfixturevalue(f"{family}_checkpoint")
    model = Blip2Model(find(ModelSettings(model=str(checkpoint), dtype="fp32", device="cuda")))
    assert written(model, graphs=True) == written(model, graphs=False)
