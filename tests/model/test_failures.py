"""What fails fails alone: everything beside it is what it would have been."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from blip2cli.model.batches import MOST_FAILURES, Batches, Failed
from blip2cli.model.blip2 import Blip2Model
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.decoding.opt import OptDecoder
from blip2cli.model.decoding.requests import Completion, EncodedImage, Request
from blip2cli.records import Batch, RowError
from blip2cli.settings import GenerationSettings, ModelSettings

GREEDY, SAMPLED, BEAMS = GenerationSettings(), GenerationSettings(temperature=0.9), GenerationSettings(num_beams=3)
BAD = {(2, 0), (2, 1), (9, 2)}
ERROR = RowError("failed", "RuntimeError: injected, in two lines")


@pytest.fixture(params=["opt", "t5"])
def model(request: pytest.FixtureRequest) -> Blip2Model:
    return load(request.getfixturevalue(f"{request.param}_checkpoint"), 4)


def load(checkpoint: Path, batch_size: int) -> Blip2Model:
    return Blip2Model(find_checkpoint(ModelSettings(model=str(checkpoint), dtype="fp32", device="cpu")), batch_size)


def requests_of(model: Blip2Model, alike: bool = False) -> list[Request]:
    """Three prompts for each of a dozen images, with bounds that differ unless they are to be alike."""
    torch.manual_seed(0)
    prompts = [model.prompt_ids(prompt) for prompt in (None, "a photo of", "Question: red? Answer:")]
    images = [EncodedImage(torch.randn(model.num_query_tokens, 32), uses=3) for _ in range(12)]
    return [
        Request((number, use), image, prompt, (0, 12 if alike else 3 + 5 * (number % 4)), (number, use))
        for number, image in enumerate(images)
        for use, prompt in enumerate(prompts)
    ]


def completions(model: Blip2Model, settings: GenerationSettings, returned: int = 1) -> list[Completion]:
    return list(model.generate(iter(requests_of(model, alike=settings is BEAMS)), settings, returned))


def by_key(found: list[Completion]) -> dict:
    """Token ids or error of each request; each is answered once."""
    assert len({done.key for done in found}) == len(found)
    return {done.key: done.error or done.token_ids for done in found}


def fail(*_arguments: object) -> None:
    raise RuntimeError("injected,\n in two lines")


def fail_at(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, culprit: Callable[[list], bool]) -> list[int]:
    """Let a method fail for lists in which something is a culprit; gives the lists' lengths."""
    method, lengths = getattr(owner, name), []

    def failing(self: object, items: list, *others: object) -> object:
        lengths.append(len(items))
        if culprit(items):
            fail()
        return method(self, items, *others)

    monkeypatch.setattr(owner, name, failing)
    return lengths


def decoder_of(model: Blip2Model) -> type:
    decoder: type = model.family.decoder_class()
    return decoder


def has_bad(requests: list[Request]) -> bool:
    return any(request.key in BAD for request in requests)


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_requests_that_cannot_be_admitted_fail_alone(
    model: Blip2Model, settings: GenerationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = by_key(completions(model, settings))
    fail_at(monkeypatch, decoder_of(model), "admit", has_bad)
    assert by_key(completions(model, settings)) == expected | dict.fromkeys(BAD, ERROR)
    assert model.batch_size == 4, "only memory makes batches smaller"


def test_a_text_that_fails_on_its_way_fails_alone(model: Blip2Model, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = by_key(completions(model, GREEDY))
    fed = {key: set(token_ids[:-1]) for key, token_ids in expected.items()}
    rarest = min(set().union(*fed.values()), key=lambda token: sum(token in tokens for tokens in fed.values()))
    bad = {key: ERROR for key, tokens in fed.items() if rarest in tokens}
    fail_at(monkeypatch, decoder_of(model), "step", lambda tokens: rarest in tokens)
    assert by_key(completions(model, GREEDY)) == expected | bad
    assert 0 < len(bad) < 6


def test_beams_that_fail_fail_alone(model: Blip2Model, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sorted(completions(model, BEAMS, returned=2), key=lambda done: done.key)
    fail_at(monkeypatch, decoder_of(model), "admit", has_bad)
    found = sorted(completions(model, BEAMS, returned=2), key=lambda done: done.key)
    assert found == [Completion(done.key, (), ERROR) if done.key in BAD else done for done in expected]


def test_images_are_let_go_when_their_requests_fail(opt_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(opt_checkpoint, 4)
    fail_at(monkeypatch, OptDecoder, "step", lambda tokens: len(tokens) == 7)
    requests = requests_of(model)
    list(model.generate(iter(requests), GREEDY))
    assert all(request.image.uses == 0 and request.image.prefix is None for request in requests)


def test_a_failure_while_memory_is_short_loses_nothing(model: Blip2Model, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, decoder = by_key(completions(model, GREEDY)), decoder_of(model)
    fail_at(monkeypatch, decoder, "admit", has_bad)
    step = decoder.step

    def step_with_little_memory(self: object, tokens: list[int]) -> torch.Tensor:
        if len(tokens) > 5:
            raise torch.OutOfMemoryError("injected")
        return step(self, tokens)

    monkeypatch.setattr(decoder, "step", step_with_little_memory)
    assert by_key(completions(model, GREEDY)) == expected | dict.fromkeys(BAD, ERROR)


@pytest.mark.parametrize("settings", [GREEDY, BEAMS], ids=["greedy", "beams"])
def test_where_all_fails_the_run_ends(
    model: Blip2Model, settings: GenerationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_of(model), "step", fail)
    with pytest.raises(RuntimeError, match="injected"):
        completions(model, settings)


def test_an_interrupt_is_no_failure(model: Blip2Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(decoder_of(model), "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        completions(model, GREEDY)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_what_the_requests_come_from_may_fail_and_is_heard(model: Blip2Model, error: type[Exception]) -> None:
    def requests() -> Iterator[Request]:
        yield from requests_of(model)[:5]
        raise error("of the encoder")

    with pytest.raises(error, match="of the encoder"):
        list(model.generate(requests(), GREEDY))


@pytest.mark.parametrize("kind", ["query_output", "vision_output"])
def test_an_image_that_fails_fails_alone_and_is_not_kept(
    opt_checkpoint: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = load(opt_checkpoint, 8), batch_of(8)
    expected = getattr(model, kind)(batch)
    model.forget()
    with monkeypatch.context() as broken:
        fail_for_images(model, {3, 4}, broken)
        for _ in range(2):  # from the images, and then from what is kept of them
            features = getattr(model, kind)(batch)
            assert features[3:5] == [Failed(ERROR)] * 2
            for at in (0, 1, 2, 5, 6, 7):
                torch.testing.assert_close(features[at], expected[at])
    torch.testing.assert_close(getattr(model, kind)(batch), expected)
    assert model.batch_size == 8


def test_an_image_that_fails_has_no_embeddings(opt_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(opt_checkpoint, 8)
    fail_for_images(model, {3}, monkeypatch)
    images = model.encode(batch_of(5))
    assert [image.error for image in images] == [None, None, None, ERROR, None]
    assert [image.query_embeds.numel() > 0 for image in images] == [True, True, True, False, True]


def test_a_text_that_fails_has_no_features(model: Blip2Model, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(model.text_output("a red circle"), torch.Tensor)
    language_model = model.model.language_model
    part = language_model.get_submodule(model.family.text_encoder)
    monkeypatch.setattr(part, "forward", lambda **_arguments: fail())
    assert model.text_output("a red circle") == Failed(ERROR)


def batch_of(count: int) -> Batch:
    """Images of noise whose first value is their number."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)
    pixels[:, 0, 0, 0] = torch.arange(count)
    return Batch((), pixels, (), (), tuple(bytes([number]) for number in range(count)))


def fail_for_images(model: Blip2Model, numbers: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    vision = model.encoder.vision

    def failing(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return fail() if numbers & set(pixels[:, 0, 0, 0].tolist()) else vision(pixels)

    monkeypatch.setattr(model.encoder, "vision", failing)


def odd(numbers: list[int]) -> list[int]:
    """Each number; fails with the first even one among them."""
    for number in numbers:
        if number % 2 == 0:
            raise ValueError(f"{number} is even")
    return numbers


def test_a_batch_is_split_until_the_culprits_are_alone() -> None:
    given = Batches(8).compute(odd, [1, 3, 4, 5, 7, 9, 10])
    four, ten = (Failed(RowError("failed", f"ValueError: {number} is even")) for number in (4, 10))
    assert given == [1, 3, four, 5, 7, 9, ten]


def test_a_batch_in_which_all_fail_raises_the_first_error() -> None:
    with pytest.raises(ValueError, match="4 is even"):
        Batches(8).compute(odd, [4, 6, 8])


def test_culprits_side_by_side_do_not_end_a_run_in_which_something_worked() -> None:
    batches = Batches(2)
    assert batches.compute(odd, [1, 3]) == [1, 3]
    assert all(isinstance(failed, Failed) for failed in batches.compute(odd, [4, 6]))


def test_many_failures_in_a_row_raise_the_first_error() -> None:
    batches, evens = Batches(1), range(0, 2 * MOST_FAILURES, 2)
    assert all(isinstance(batches.compute(odd, [even])[0], Failed) for even in evens[1:])
    batches.compute(odd, [1])
    assert all(isinstance(batches.compute(odd, [even])[0], Failed) for even in evens[1:])
    with pytest.raises(ValueError, match=r"^2 is even"):
        batches.compute(odd, [0])


def test_a_long_message_is_cut() -> None:
    def verbose(items: list) -> list:
        raise ValueError("one\n" + "two " * 1000)

    (failed,) = Batches(1).compute(verbose, [1])
    assert str(failed.error).startswith("failed: ValueError: one two two") and len(str(failed.error)) < 170
