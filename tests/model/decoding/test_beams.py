"""Beam search finds what transformers' `generate` finds for each request alone, with the same scores."""

from pathlib import Path
from typing import Any

import pytest
import torch

from blip2cli.model.blip2 import Blip2Model
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.decoding import loop
from blip2cli.model.decoding.requests import EncodedImage, Request
from blip2cli.settings import GenerationSettings, ModelSettings
from tests.conftest import ENDS

MOST = 14
SETTINGS = {
    "2 beams": (GenerationSettings(num_beams=2), 1),
    "3 beams, short": (GenerationSettings(num_beams=3, length_penalty=-1.0), 3),
    "4 beams, any length": (GenerationSettings(num_beams=4, length_penalty=0.0, repetition_penalty=1.3), 2),
    "5 beams, not too short": (GenerationSettings(num_beams=5, min_new_tokens=4), 5),
    "5 beams, long": (GenerationSettings(num_beams=5, length_penalty=2.5, repetition_penalty=0.8), 2),
    "5 beams, short, not too short": (GenerationSettings(num_beams=5, length_penalty=-1.0, min_new_tokens=3), 4),
}
PROMPTS = (None, "a photo of", "Question: how many shapes are there in this picture? Answer:")


@pytest.fixture(params=["opt", "t5"])
def model(request: pytest.FixtureRequest) -> Blip2Model:
    folder: Path = request.getfixturevalue(f"{request.param}_checkpoint")
    return Blip2Model(find_checkpoint(ModelSettings(str(folder), dtype="fp32", device="cpu")), 3)


def requests_of(model: Blip2Model, settings: GenerationSettings) -> list[Request]:
    """Two or three prompts for each of eight images, some of which are admitted while others are being written."""
    torch.manual_seed(0)
    requests = []
    for number in range(8):
        prompts = PROMPTS[number % 2 :]
        image = EncodedImage(torch.randn(model.num_query_tokens, 32), uses=len(prompts))
        for at, prompt in enumerate(prompts):
            lengths = (settings.min_new_tokens, MOST - number)
            requests.append(Request((number, at), image, model.prompt_ids(prompt), lengths))
    return requests


@torch.inference_mode()
def theirs(model: Blip2Model, request: Request, settings: GenerationSettings, returned: int) -> list[tuple[Any, float]]:
    """Token ids and log-probability of each text that `generate` finds, best first."""
    language_model = model.model.language_model
    prompt = torch.tensor([request.prompt_ids], dtype=torch.long)
    image = request.image.query_embeds[None]
    embeds = torch.cat([image, language_model.get_input_embeddings()(prompt)], dim=1)
    inputs = {"inputs_embeds": embeds, "attention_mask": torch.ones(embeds.shape[:2], dtype=torch.long)}
    started = 1
    if not language_model.config.is_encoder_decoder:
        placeholders = torch.full(image.shape[:2], model.model.config.image_token_index)
        inputs["input_ids"] = torch.cat([placeholders, prompt], dim=1)
        started = embeds.shape[1]
    found = language_model.generate(
        **inputs,
        do_sample=False,
        num_beams=settings.num_beams,
        num_return_sequences=returned,
        max_new_tokens=request.lengths[1],
        min_new_tokens=settings.min_new_tokens or None,
        length_penalty=settings.length_penalty,
        repetition_penalty=settings.repetition_penalty,
        eos_token_id=list(model.end_ids),
        return_dict_in_generate=True,
        output_logits=True,
    )
    steps = language_model.compute_transition_scores(
        found.sequences, found.logits, found.beam_indices, normalize_logits=True
    )
    texts = []
    for row, beams in zip(found.sequences[:, started:].tolist(), found.beam_indices, strict=True):
        written = row[: int((beams >= 0).sum())]
        texts.append(tuple(written[:-1] if written[-1] in model.end_ids else written))
    return list(zip(texts, steps.sum(dim=-1).tolist(), strict=True))


@pytest.mark.parametrize("few_ends", [False, True], ids=["many ends", "few ends"])
@pytest.mark.parametrize(("settings", "returned"), SETTINGS.values(), ids=SETTINGS)
def test_beams_equal_generate(
    model: Blip2Model, settings: GenerationSettings, returned: int, few_ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Blip2Model, "end_ids", tuple(ENDS[:6] if few_ends else ENDS))
    requests = requests_of(model, settings)
    scored = GenerationSettings(**{**vars(settings), "scores": True})
    found: dict[Any, list[Any]] = {}
    for done in model.generate(iter(requests), scored, returned):
        found.setdefault(done.key, []).append((done.token_ids, done.logprob))
    assert len({len(ids) for texts in found.values() for ids, _ in texts}) > 2, "some end early"
    for request in requests[few_ends::2]:
        expected = theirs(model, request, settings, returned)
        assert [ids for ids, _ in found[request.key]] == [ids for ids, _ in expected]
        assert [score for _, score in found[request.key]] == pytest.approx([score for _, score in expected], abs=1e-3)


def test_a_text_does_not_depend_on_what_is_written_beside_it(model: Blip2Model) -> None:
    settings = GenerationSettings(num_beams=4, length_penalty=-1.0)
    requests = requests_of(model, settings)
    together = {done.key: done.token_ids for done in model.generate(iter(requests), settings)}
    for request in requests[::5]:
        request.image.uses, request.image.prefix = 1, None
        (alone,) = model.generate([request], settings)
        assert alone.token_ids == together[request.key]


def test_memory_that_runs_out_halves_the_texts_and_loses_none(
    model: Blip2Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = GenerationSettings(num_beams=3)
    expected = {done.key: done.token_ids for done in model.generate(iter(requests_of(model, settings)), settings)}
    decoder, widths = model.family.decoder_class(), []
    step = decoder.step
    monkeypatch.setattr(loop, "FIRST", 32)  # texts at once, from the start

    def step_with_little_memory(self: object, tokens: torch.Tensor) -> torch.Tensor:
        widths.append(len(tokens))
        if len(tokens) > 8:
            raise torch.OutOfMemoryError("injected")
        return step(self, tokens)

    monkeypatch.setattr(decoder, "step", step_with_little_memory)
    found = {done.key: done.token_ids for done in model.generate(iter(requests_of(model, settings)), settings)}
    assert found == expected
    assert max(widths) == 24 and widths[-1] <= 8 and model.batch_size == 1


def test_the_first_tokens_of_a_texts_beams_are_computed_once(
    model: Blip2Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = GenerationSettings(num_beams=4)
    decoder, fed = model.family.decoder_class(), []
    step_in = decoder.step_in

    def counting(self: object, slots: slice, tokens: torch.Tensor) -> torch.Tensor:
        fed.append((slots.step, len(tokens)))
        return step_in(self, slots, tokens)

    monkeypatch.setattr(decoder, "step_in", counting)
    requests = requests_of(model, settings)
    list(model.generate(iter(requests), settings))
    first_steps = [tokens for every, tokens in fed if every == settings.num_beams]
    assert sum(first_steps) == len(requests) and len(first_steps) > 1
    assert all(tokens % settings.num_beams == 0 for every, tokens in fed if every is None)
