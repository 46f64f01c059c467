"""Decoding keeps its promises whatever goes on around a sequence."""

from itertools import islice
from pathlib import Path

import pytest
import torch

from blip2cli.model.blip2 import Blip2Model
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.decoding import loop
from blip2cli.model.decoding.opt import OptDecoder
from blip2cli.model.decoding.requests import EncodedImage, Request
from blip2cli.records import Batch
from blip2cli.settings import GenerationSettings, ModelSettings


def requests_of(model: Blip2Model, count: int, uses: int = 1) -> list[Request]:
    torch.manual_seed(0)
    width = model.model.config.text_config.hidden_size
    requests = []
    for number in range(count):
        image = EncodedImage(torch.randn(model.num_query_tokens, width), uses)
        for use in range(uses):
            prompt = model.prompt_ids("a photo of" if use else None)
            requests.append(Request((number, use), image, prompt, (0, 3 + 5 * (number % 4)), (number, use)))
    return requests


def texts(model: Blip2Model, requests: list[Request], settings: GenerationSettings) -> dict:
    return {done.key: done.token_ids for done in model.generate(iter(requests), settings)}


@pytest.fixture
def settings() -> ModelSettings:
    return ModelSettings(dtype="fp32", device="cpu")


def load(checkpoint: Path, batch_size: int) -> Blip2Model:
    return Blip2Model(find_checkpoint(ModelSettings(model=str(checkpoint), dtype="fp32", device="cpu")), batch_size)


def test_sampled_texts_do_not_depend_on_the_batch_size(opt_checkpoint: Path) -> None:
    sampling = GenerationSettings(temperature=0.9, top_p=0.8, seed=3)
    one, many = load(opt_checkpoint, 1), load(opt_checkpoint, 8)
    alone = texts(one, requests_of(one, 20), sampling)
    assert alone == texts(many, requests_of(many, 20), sampling)
    assert alone != texts(many, requests_of(many, 20), GenerationSettings(temperature=0.9, top_p=0.8, seed=4))


def test_a_tiny_nucleus_is_greedy(opt_checkpoint: Path) -> None:
    model = load(opt_checkpoint, 4)
    sampled = texts(model, requests_of(model, 8), GenerationSettings(temperature=1.0, top_p=1e-6))
    assert sampled == texts(model, requests_of(model, 8), GenerationSettings())


def test_out_of_memory_halves_the_slots_and_loses_nothing(
    opt_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(opt_checkpoint, 4)
    expected = texts(model, requests_of(model, 20, uses=3), GenerationSettings())
    step, widths = OptDecoder.step, []
    monkeypatch.setattr(loop, "FIRST", 32)  # texts at once, from the start

    def step_with_little_memory(self: OptDecoder, tokens: list[int]) -> torch.Tensor:
        widths.append(len(tokens))
        if len(tokens) > 5:
            raise torch.OutOfMemoryError("injected")
        return step(self, tokens)

    monkeypatch.setattr(OptDecoder, "step", step_with_little_memory)
    assert texts(model, requests_of(model, 20, uses=3), GenerationSettings()) == expected
    assert max(widths) == 32 and widths[-1] <= 5


def test_out_of_memory_in_the_encoder_halves_the_batch(opt_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(opt_checkpoint, 8)
    pixels = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8)
    batch = Batch((), pixels, (), (), tuple(bytes([number]) for number in range(8)))
    expected, query_output = model.query_output(batch), model.encoder.query_output
    model.forget()

    def with_little_memory(image_embeds: torch.Tensor) -> torch.Tensor:
        if len(image_embeds) > 3:
            raise torch.OutOfMemoryError("injected")
        return query_output(image_embeds)

    monkeypatch.setattr(model.encoder, "query_output", with_little_memory)
    torch.testing.assert_close(model.query_output(batch), expected)
    assert model.batch_size == 2


def test_the_same_bytes_are_not_encoded_again(opt_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, encoded = load(opt_checkpoint, 8), []
    vision = model.encoder.vision
    monkeypatch.setattr(model.encoder, "vision", lambda pixels: encoded.append(len(pixels)) or vision(pixels))
    pixels = torch.randint(0, 256, (6, 32, 32, 3), dtype=torch.uint8)
    digests = tuple(bytes([number]) for number in range(6))
    first = model.query_output(Batch((), pixels[:4], (), (), digests[:4]))
    second = model.query_output(Batch((), pixels[2:], (), (), digests[2:]))
    assert encoded == [4, 2]
    torch.testing.assert_close(first[2:], second[:2])


def test_an_image_is_prefilled_once_for_many_prompts(opt_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(opt_checkpoint, 1)
    prefill, prefilled = OptDecoder._keep_prefixes, []

    def counting(self: OptDecoder, requests: list[Request]) -> int:
        prefilled.extend({id(request.image) for request in requests if request.image.prefix is None})
        return prefill(self, requests)

    monkeypatch.setattr(OptDecoder, "_keep_prefixes", counting)
    requests = requests_of(model, 3, uses=9)
    texts(model, requests, GenerationSettings())
    assert len(prefilled) == 3
    assert all(request.image.prefix is None for request in requests), "kept no longer than needed"


RED, IS_IT = "Question: is it red? Answer:", "Question: is it"
PROMPTS = {
    "begin alike": [RED, IS_IT, "Question: is it blue?", RED],
    "are equal": [RED, RED],
    "have one token": [None, None],
    "differ": [RED, IS_IT, None],
}
ALIKE = {"begin alike": IS_IT, "are equal": RED, "have one token": None, "differ": None}


@pytest.mark.parametrize("first", [1, 32], ids=["one after the other", "together"])
@pytest.mark.parametrize("case", PROMPTS)
def test_what_prompts_begin_with_is_read_once_with_the_image(
    opt_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, case: str, first: int
) -> None:
    model, lengths, read = load(opt_checkpoint, 8), [], OptDecoder._read_images

    def noting(self: OptDecoder, embeds: torch.Tensor) -> tuple[torch.Tensor, ...]:
        lengths.append(embeds.shape[1] - model.num_query_tokens)
        return read(self, embeds)

    monkeypatch.setattr(loop, "_first_texts", lambda stream, most: list(islice(stream, first)))
    monkeypatch.setattr(OptDecoder, "_read_images", noting)
    prompts = [model.prompt_ids(prompt) for prompt in PROMPTS[case]]
    embeds, beams = requests_of(model, 1)[0].image.query_embeds, GenerationSettings(num_beams=2)
    shared = EncodedImage(embeds, uses=len(prompts))
    together = [Request(at, shared, prompt, (0, 9)) for at, prompt in enumerate(prompts)]
    alone = [Request(at, EncodedImage(embeds), prompt, (0, 9)) for at, prompt in enumerate(prompts)]
    assert texts(model, together, beams) == texts(model, alone, beams)
    read_with_image = model.prompt_ids(ALIKE[case]) if first > 1 else prompts[0]
    assert lengths == [len(read_with_image) - 1]
