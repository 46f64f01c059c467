"""Probabilities of texts equal those of a plain forward pass over one image, prompt and text."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from blip2cli.images.decode import Reading
from blip2cli.images.loader import Loading, load
from blip2cli.inputs import ColumnChoice, open_source
from blip2cli.model.blip2 import Blip2Model
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.decoding.requests import EncodedImage, Request
from blip2cli.settings import GenerationSettings, ModelSettings

PROMPTS = (None, "a photo of", "Question: what colour is it? Answer:")


@pytest.fixture(params=["opt", "t5"])
def model(request: pytest.FixtureRequest) -> Blip2Model:
    folder = request.getfixturevalue(f"{request.param}_checkpoint")
    return Blip2Model(find_checkpoint(ModelSettings(str(folder), dtype="fp32")), 3)


@pytest.fixture
def images(model: Blip2Model, photos: Path) -> list[EncodedImage]:
    rows = open_source([str(photos)], ColumnChoice()).rows()
    batches = load(rows, Reading(model.checkpoint.images.side), 5, Loading(workers=0))
    return [image for batch in batches for image in model.encode(batch)]


@torch.inference_mode()
def forward(model: Blip2Model, image: EncodedImage, prompt: tuple[int, ...], text: tuple[int, ...]) -> torch.Tensor:
    """Log-probabilities [len(text) + 1, vocabulary] of what stands at each place of a text, and behind it."""
    language: Any = model.model.language_model
    embed = language.get_input_embeddings()
    start = torch.cat([image.query_embeds, embed(torch.tensor(prompt, dtype=torch.long))])[None]
    if language.config.is_encoder_decoder:
        fed = torch.tensor([[language.config.decoder_start_token_id, *text]])
        logits = language(inputs_embeds=start, decoder_input_ids=fed).logits[0]
    else:
        whole = torch.cat([start, embed(torch.tensor([list(text)], dtype=torch.long))], dim=1)
        logits = language(inputs_embeds=whole, attention_mask=torch.ones(whole.shape[:2])).logits[
            0, start.shape[1] - 1 :
        ]
    return logits.log_softmax(-1)


def asked(model: Blip2Model, images: list[EncodedImage], **given: Any) -> list[Request]:
    pairs = [(image, prompt) for image in images for prompt in PROMPTS]
    for image in images:
        image.uses = len(PROMPTS)
    return [Request(at, image, model.prompt_ids(prompt), (0, 7), **given) for at, (image, prompt) in enumerate(pairs)]


@pytest.mark.parametrize(
    "settings",
    [
        GenerationSettings(scores=True, max_new_tokens=7),
        GenerationSettings(scores=True, max_new_tokens=7, temperature=1.3, top_p=0.9, repetition_penalty=1.2),
        GenerationSettings(scores=True, max_new_tokens=7, num_beams=3, length_penalty=2.0),
    ],
    ids=["greedy", "sampled", "beams"],
)
def test_scores_are_those_of_the_text_alone(
    model: Blip2Model, images: list[EncodedImage], settings: GenerationSettings
) -> None:
    requests = asked(model, images)
    done = {completion.key: completion for completion in model.generate(requests, settings)}
    assert len(done) == len(requests)
    if settings.num_beams == 1:
        assert len({completion.scored for completion in done.values()}) > 1, "some end early"
    for request in requests:
        completion = done[request.key]
        text = completion.token_ids
        steps = forward(model, request.image, request.prompt_ids, text)
        expected = sum(float(steps[at, token]) for at, token in enumerate(text))
        if completion.scored > len(text):  # it ended by an end token, the likeliest if greedy
            assert completion.scored == len(text) + 1
            ends = [expected + float(steps[len(text), end]) for end in model.end_ids]
            assert min(abs(completion.logprob - end) for end in ends) < 1e-3
        else:
            assert completion.logprob == pytest.approx(expected, abs=1e-3)


def test_scores_cost_nothing_where_they_are_not_asked_for(model: Blip2Model, images: list[EncodedImage]) -> None:
    done = list(model.generate(asked(model, images), GenerationSettings(max_new_tokens=7)))
    assert all((completion.logprob, completion.scored) == (0.0, 0) for completion in done)


def test_forced_texts_get_the_probability_of_themselves_and_an_end(
    model: Blip2Model, images: list[EncodedImage]
) -> None:
    choices = [model.answer_ids(text) for text in ("yes", "no", "a red circle and a blue one", "red")]
    requests = []
    for image in images:
        image.uses = len(choices)
        prompt = model.prompt_ids(PROMPTS[2])
        requests += [Request((id(image), at), image, prompt, (0, 9), forced=one) for at, one in enumerate(choices)]
    done = {completion.key: completion for completion in model.generate(requests, GenerationSettings(max_new_tokens=7))}
    for request in requests:
        steps = forward(model, request.image, request.prompt_ids, request.forced)
        expected = sum(float(steps[at, token]) for at, token in enumerate(request.forced))
        expected += float(steps[len(request.forced), list(model.end_ids)].logsumexp(-1))
        assert done[request.key].logprob == pytest.approx(expected, abs=1e-3)
        assert done[request.key].token_ids == request.forced and math.isfinite(done[request.key].logprob)
