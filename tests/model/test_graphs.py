"""What is recorded, with all slots, fixed shapes and tokens read one step late, writes the same texts.

Without a CUDA device recording is replaced: a function is called as often as it would be, over memory that stays.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from blip2cli.host.stopwatch import Stopwatch
from blip2cli.model import blip2, loaded
from blip2cli.model.blip2 import Blip2Model
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.decoding.language_model import LanguageModel
from blip2cli.model.decoding.requests import Completion, EncodedImage, Request
from blip2cli.model.graphs import (
    WARM_UP,
    Eager,
    Function,
    Graphs,
    PendingTensors,
    Recording,
    Runner,
    Tensors,
    runner_for,
)
from blip2cli.records import Batch, Row, RowError
from blip2cli.settings import GenerationSettings, InputSettings, Job, ModelSettings, OutputSettings
from blip2cli.tasks.embed import EmbedOptions, EmbedTask
from tests.conftest import Typed

SETTINGS = {
    "greedy": GenerationSettings(),
    "bounds and penalty": GenerationSettings(min_new_tokens=5, repetition_penalty=1.7, scores=True),
    "sampling": GenerationSettings(temperature=0.9, top_p=0.9, seed=5, scores=True),
    "beams": GenerationSettings(num_beams=3, repetition_penalty=1.2, min_new_tokens=2, scores=True),
}
CPU = torch.device("cpu")


class Replayed(Graphs):
    """Graphs as far as they can be had without CUDA; `made` counts the recordings of each name."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.made: dict[str, int] = {}

    def run(self, name: Any, function: Function, *inputs: torch.Tensor) -> Tensors:
        self.name = name
        return super().run(name, function, *inputs)

    def record(self, function: Function, inputs: Tensors) -> Recording:
        self.made[self.name] = self.made.get(self.name, 0) + 1
        for _ in range(WARM_UP):
            function(*inputs)
        outputs = tuple(tensor.clone() for tensor in function(*inputs))

        def replay() -> None:
            for memory, tensor in zip(outputs, function(*inputs), strict=True):
                memory.copy_(tensor)

        return Recording(inputs, outputs, replay)


@pytest.fixture(params=["opt", "t5"])
def checkpoint(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(f"{request.param}_checkpoint")


@pytest.fixture
def runners(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Replayed]]:
    """Everything is recorded; these are the runners made."""
    made: list[Replayed] = []

    def make(devices: Sequence[torch.device]) -> Runner:
        made.append(Replayed())
        return made[-1]

    monkeypatch.setattr(blip2, "runner_for", make)
    monkeypatch.setattr(loaded, "runner_for", make)
    yield made


def load(checkpoint: Path, batch_size: int = 2) -> Blip2Model:
    return Blip2Model(find_checkpoint(ModelSettings(model=str(checkpoint), dtype="fp32", device="cpu")), batch_size)


def requests_of(model: Blip2Model, settings: GenerationSettings) -> list[Request]:
    """Of prompts from 1 to 73 tokens and texts up to 40, some of images that are shared: the caches grow."""
    torch.manual_seed(0)
    width, word = model.model.language_projection.out_features, model.prompt_ids("photo")[-1]
    images = [EncodedImage(torch.randn(model.num_query_tokens, width), uses=2 if n < 6 else 1) for n in range(18)]
    requests = []
    for number, image in enumerate(images):
        for use in range(image.uses):
            prompt = (*model.prompt_ids("a"), *[word] * (4 * number + 2 * use)) if number else model.prompt_ids(None)
            lengths = (settings.min_new_tokens, 3 + 2 * number)
            requests.append(Request((number, use), image, prompt, lengths, (number, use)))
    return requests


def written(model: Blip2Model, settings: GenerationSettings, returned: int = 1) -> list[Completion]:
    """Completions by request; scores to four digits."""
    completions = model.generate(iter(requests_of(model, settings)), settings, returned)
    return sorted(completions, key=lambda done: done.key)


def equal(found: list[Completion], expected: list[Completion]) -> bool:
    for one, other in zip(found, expected, strict=True):
        assert (one.key, one.token_ids, one.error, one.scored) == (
            other.key, other.token_ids, other.error, other.scored
        )  # fmt: skip
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
    return True


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_recorded_steps_write_the_same(
    checkpoint: Path, settings: GenerationSettings, request: pytest.FixtureRequest
) -> None:
    returned = 2 if settings.num_beams > 1 else 1
    expected = written(load(checkpoint), settings, returned)
    runners: list[Replayed] = request.getfixturevalue("runners")
    model = load(checkpoint)
    assert equal(written(model, settings, returned), expected)
    images, runner = runners
    assert not images.made
    made = dict(runner.made)
    assert equal(written(model, settings, returned), expected), "in the same caches, which are not empty now"
    assert 1 < made["step"] < 6, "recorded for each size of the caches"
    assert runners == [images, runner] and runner.made["step"] == made["step"], "and kept from one call to the next"
    assert made["read"] > 1 and not runner.refused


def test_what_cannot_be_recorded_runs_as_it_is(
    checkpoint: Path, runners: list[Replayed], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = written(load(checkpoint), SETTINGS["greedy"])

    def record(self: Replayed, function: Function, inputs: Tensors) -> Recording:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(Replayed, "record", record)
    caplog.set_level(logging.DEBUG)
    assert equal(written(load(checkpoint), SETTINGS["greedy"]), expected)
    assert "step cannot be recorded as a CUDA graph, and runs without one: operation not permitted" in caplog.text


def test_debug_says_what_is_not_recorded(
    typed: Callable[..., Typed], runners: list[Replayed], monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(self: Replayed, function: Function, inputs: Tensors) -> Recording:
        raise RuntimeError("injected")

    monkeypatch.setattr(Replayed, "record", record)
    circle = Path(__file__).parents[2] / "docs" / "examples" / "red-circle.png"
    quiet, debugged = typed("caption", circle), typed("caption", circle, "--debug")
    assert quiet.rows == debugged.rows and quiet.rows[0]["caption"] == "a red circle"
    said = "debug: embeds cannot be recorded as a CUDA graph, and runs without one: injected"
    assert said in debugged.err.splitlines() and said not in quiet.err


@pytest.mark.parametrize("settings", [SETTINGS["greedy"], SETTINGS["beams"]], ids=["greedy", "beams"])
def test_memory_that_runs_out_while_recording_loses_nothing(
    checkpoint: Path, settings: GenerationSettings, runners: list[Replayed], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = written(load(checkpoint), settings)
    record, model, slots = Replayed.record, load(checkpoint), []
    step = model.family.decoder_class().step

    def step_with_little_memory(self: LanguageModel, tokens: torch.Tensor) -> torch.Tensor:
        slots.append(len(tokens))
        if len(tokens) > 6:
            raise torch.OutOfMemoryError("injected")
        return step(self, tokens)

    monkeypatch.setattr(model.family.decoder_class(), "step", step_with_little_memory)
    assert Replayed.record is record
    assert equal(written(model, settings), expected)
    assert slots[0] > 6 >= slots[-1] and model.batch_size == 1


def test_requests_that_wait_for_longer_caches_outlive_memory_that_runs_out(
    checkpoint: Path, runners: list[Replayed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen long prompts are held back while short texts are written, which is when memory runs out."""
    model, settings = load(checkpoint), SETTINGS["greedy"]
    decoder, held = model.family.decoder_class(), []
    step = decoder.step

    def requests() -> list[Request]:
        torch.manual_seed(0)
        width, word = model.model.language_projection.out_features, model.prompt_ids("photo")[-1]
        images = [EncodedImage(torch.randn(model.num_query_tokens, width)) for _ in range(32)]
        return [
            Request(number, image, (word,) * (1 if number < 16 else 40), (0, 4 if number < 16 else 30))
            for number, image in enumerate(images)
        ]

    def step_with_less_memory_later(self: LanguageModel, tokens: torch.Tensor) -> torch.Tensor:
        held.append(len(tokens))
        if len(tokens) > 8 and len(held) > WARM_UP + 6:
            raise torch.OutOfMemoryError("injected")
        return step(self, tokens)

    expected = {done.key: done.token_ids for done in model.generate(iter(requests()), settings)}
    again = load(checkpoint)
    monkeypatch.setattr(decoder, "step", step_with_less_memory_later)
    assert {done.key: done.token_ids for done in again.generate(iter(requests()), settings)} == expected
    assert max(held) == 16 and held[-1] == 8


@pytest.mark.parametrize("recorded", [False, True], ids=["as it is", "recorded"])
def test_a_row_that_is_not_a_number_harms_no_other(
    checkpoint: Path, recorded: bool, request: pytest.FixtureRequest
) -> None:
    if recorded:
        request.getfixturevalue("runners")
    for settings in (SETTINGS["greedy"], SETTINGS["beams"]):
        expected = written(load(checkpoint), settings)
        model = load(checkpoint)
        requests = requests_of(model, settings)
        for number in (0, 7, 8):
            requests[number].image.query_embeds[:] = torch.nan
        bad = {request.key for request in requests if request.image.query_embeds.isnan().any()}
        found = sorted(model.generate(iter(requests), settings), key=lambda done: done.key)
        assert 0 < len(bad) < 9
        assert equal(*([done for done in each if done.key not in bad] for each in (found, expected)))


def test_rows_that_fail_fail_alone(checkpoint: Path, runners: list[Replayed], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SETTINGS["sampling"]
    expected, model = written(load(checkpoint), settings), load(checkpoint)
    decoder = model.family.decoder_class()
    admit = decoder.admit

    def failing(self: LanguageModel, requests: Sequence[Request], slots: Sequence[int]) -> None:
        if any(request.key == (3, 1) for request in requests):
            raise ValueError("injected")
        admit(self, requests, slots)

    monkeypatch.setattr(decoder, "admit", failing)
    injected = RowError("failed", "ValueError: injected")
    failed = [Completion(done.key, (), injected) if done.key == (3, 1) else done for done in expected]
    assert equal(written(model, settings), failed)


def test_streams_and_choices_are_the_same(checkpoint: Path, request: pytest.FixtureRequest) -> None:
    def streamed_and_chosen(model: Blip2Model) -> tuple[list[str], list[float]]:
        requests = requests_of(model, SETTINGS["greedy"])
        streams = ["".join(model.stream(each, SETTINGS["greedy"])) for each in requests[:3]]
        image = requests[0].image
        image.uses, texts = 3, ("yes", "no", "a red circle and a blue one")
        chosen = [
            Request(at, image, model.prompt_ids("a or b?"), (0, 9), forced=model.answer_ids(text))
            for at, text in enumerate(texts)
        ]
        done = sorted(model.generate(chosen, SETTINGS["greedy"]), key=lambda each: each.key)
        assert [each.token_ids for each in done] == [each.forced for each in chosen]
        return streams, [each.logprob for each in done]

    streams, logprobs = streamed_and_chosen(load(checkpoint))
    request.getfixturevalue("runners")
    assert streamed_and_chosen(load(checkpoint)) == (streams, pytest.approx(logprobs, abs=1e-4))


@pytest.mark.parametrize("kind", ["encode", "query_output", "vision_output"])
def test_images_are_encoded_in_whole_batches(checkpoint: Path, kind: str, request: pytest.FixtureRequest) -> None:
    pixels = torch.randint(0, 256, (11, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def encoded(model: Blip2Model) -> torch.Tensor:
        def features(numbers: list[int]) -> list[torch.Tensor]:
            digests = tuple(bytes([number]) for number in numbers)
            given = getattr(model, kind)(Batch((), pixels[numbers], (), (), digests))
            return [one.query_embeds if isinstance(one, EncodedImage) else one for one in given]

        return torch.stack([*features([0, 1, 2, 3]), *features([4, 5, 2]), *features([6, 7, 8, 9, 10])])

    expected = encoded(load(checkpoint, 4))
    runners: list[Replayed] = request.getfixturevalue("runners")
    torch.testing.assert_close(encoded(load(checkpoint, 4)), expected, atol=1e-4, rtol=1e-4)
    assert list(runners[0].made.values()) == [1]


@pytest.mark.parametrize("features", ["qformer", "vision"])
def test_features_are_read_after_the_next_batch_has_begun(
    checkpoint: Path, features: Literal["qformer", "vision"], request: pytest.FixtureRequest
) -> None:
    settings = ModelSettings(model=str(checkpoint), dtype="fp32", device="cpu")
    options, files = EmbedOptions(features=features), InputSettings(("unread.png",))
    task = EmbedTask(Job("embed", options, files, OutputSettings(), settings, GenerationSettings()))
    pixels = torch.randint(0, 256, (7, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    read: list[int] = []

    def batches() -> Iterator[Batch]:
        for first in (0, 3, 6):
            numbers = list(range(first, min(first + 3, 7)))
            rows = tuple(Row(number, str(number)) for number in numbers)
            digests = tuple(bytes([number % 5]) for number in numbers)  # the last two are the first two again
            read.append(first)
            images = pixels[[number % 5 for number in numbers]]
            yield Batch(rows, images, tuple(range(len(rows))), (None,) * len(rows), digests)

    def results(model: Blip2Model) -> tuple[list[Any], list[int]]:
        read.clear()
        given = [(result, len(read)) for result in task.results(model, batches(), Stopwatch())]
        assert [result.row.index for result, _ in given] == list(range(7))
        return [result.values[0] for result, _ in given], [had_read for _, had_read in given]

    expected, at_once = results(load(checkpoint, 3))
    request.getfixturevalue("runners")
    found, late = results(load(checkpoint, 3))
    assert at_once == [1, 1, 1, 2, 2, 2, 3] and late == [2, 2, 2, 3, 3, 3, 3]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.tensor(one), torch.tensor(other))


def test_memory_that_runs_out_for_a_batch_may_be_enough_for_fewer_images(
    checkpoint: Path, runners: list[Replayed], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(checkpoint, 8)
    vision, sizes = model.encoder.vision, []

    def with_little_memory(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(pixels))
        if len(pixels) > 3:
            raise torch.OutOfMemoryError("injected")
        return vision(pixels)

    monkeypatch.setattr(model.encoder, "vision", with_little_memory)
    pixels = torch.randint(0, 256, (9, 32, 32, 3), dtype=torch.uint8)
    batch = Batch((), pixels[:1], (), (), (b"0",))
    assert isinstance(model.query_output(batch)[0], torch.Tensor) and sizes == [8, 1] and model.batch_size == 8
    batch = Batch((), pixels[1:], (), (), tuple(bytes([number]) for number in range(1, 9)))
    assert all(isinstance(one, torch.Tensor) for one in model.query_output(batch)) and model.batch_size == 2


def test_memory_that_runs_out_is_known_where_the_end_of_a_recording_fails_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(self: Replayed, function: Function, inputs: Tensors) -> Recording:
        try:
            raise torch.OutOfMemoryError("out of memory")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(Replayed, "record", record)
    runner = Replayed()
    with pytest.raises(torch.OutOfMemoryError):
        runner.run("step", lambda: ())
    assert not runner.refused, "with fewer texts it is recorded"


def test_tensors_are_waited_for_on_their_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas have another current device than their own, except for the first."""
    recorded: list[torch.device] = []

    class Event:
        def record(self, stream: torch.device) -> None:
            recorded.append(stream)

    class OnDevice:
        device = torch.device("cuda", 1)

    class OnHost:
        def copy_(self, source: OnDevice, non_blocking: bool) -> None: ...

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: device)
    monkeypatch.setattr(torch, "empty_like", lambda tensor, device, pin_memory: OnHost())
    PendingTensors((OnDevice(),))  # type: ignore[arg-type]
    assert recorded == [torch.device("cuda", 1)]


def test_only_one_cuda_device_is_recorded() -> None:
    assert isinstance(runner_for([CPU]), Eager)
    assert isinstance(runner_for([torch.device("mps")]), Eager)
    assert isinstance(runner_for([torch.device("cuda", 0)]), Graphs)
    assert isinstance(runner_for([torch.device("cuda", 0), torch.device("cuda", 1)]), Eager)


@pytest.mark.cuda
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_cuda_graphs_write_the_same(
    checkpoint: Path, settings: GenerationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.backends.cudnn.allow_tf32 = False
    on_cuda = find_checkpoint(ModelSettings(model=str(checkpoint), dtype="fp32", device="cuda"))
    recorded = written(Blip2Model(on_cuda, 2), settings)
    monkeypatch.setattr(blip2, "runner_for", lambda devices: Eager())
    assert equal(recorded, written(Blip2Model(on_cuda, 2), settings))
