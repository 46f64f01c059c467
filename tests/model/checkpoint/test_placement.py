"""A model over several devices: layers are shared out by their size, and it writes what it writes on one."""

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from accelerate.utils.modeling import check_device_map

from blip2cli.errors import CheckpointError
from blip2cli.model.blip2 import Blip2Model
from blip2cli.model.checkpoint import packing, placement
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.checkpoint.load import load_weights
from blip2cli.model.checkpoint.record import Checkpoint
from blip2cli.model.checkpoint.size import weight_bytes
from blip2cli.model.decoding.requests import EncodedImage, Request
from blip2cli.records import Batch
from blip2cli.settings import GenerationSettings, ModelSettings
from tests.conftest import Typed
from tests.model.pretend import HERE, THERE, Pretend, place_module

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
Run = Callable[..., Typed]
GB = 10**9
CUDA = (torch.device("cuda", 0), torch.device("cuda", 1))


@pytest.fixture(params=["opt", "t5"])
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    folder: Path = request.getfixturevalue(f"{request.param}_checkpoint")
    return find_checkpoint(ModelSettings(model=str(folder), dtype="fp32", device="cpu"))


@pytest.mark.parametrize(
    ("rest", "layers", "rooms", "expected"),
    [
        (2, [1] * 8, [10, 10], [0] * 3 + [1] * 5),
        (2, [1] * 6, [20, 20], [0] * 2 + [1] * 4),
        (0, [1] * 9, [20, 10], [0] * 6 + [1] * 3),
        (9, [1] * 4, [10, 10], [1] * 4),
        (0, [1] * 6, [10, 10, 10], [0, 0, 1, 1, 2, 2]),
        (0, [1, 5, 1], [3, 10, 3], [0, 1, 2]),
        (2, [1] * 8, [10], None),
        (10, [1], [10, 10], None),
        (0, [10], [10, 10], None),
        (0, [4] * 5, [11, 11], None),
    ],
)
def test_layers_fill_the_devices_to_the_same_share(
    rest: int, layers: list[int], rooms: list[int], expected: list[int] | None
) -> None:
    placed = placement.assign(*(rest * GB, [size * GB for size in layers], [room * GB for room in rooms]))
    assert placed == expected


def test_all_but_layers_is_on_the_first_device(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    spread = dataclasses.replace(checkpoint, device=CUDA[0], others=CUDA[1:])
    monkeypatch.setattr(placement, "free_bytes", lambda device: weight_bytes(spread))
    layers = placement.place_layers(spread)
    parts = placement.device_map(spread.config, layers, CUDA[0])
    model = load_weights(checkpoint)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The following device_map keys .*'query_tokens'")
        check_device_map(model, parts)
    assert all(type(model.get_submodule(name)).__name__ in ("OPTDecoderLayer", "T5Block") for name in layers)
    assert len(layers) == sum(type(part).__name__ in ("OPTDecoderLayer", "T5Block") for part in model.modules())
    assert {parts[name] for name in parts if name not in layers} == {CUDA[0]}
    assert not [(a, b) for a in parts for b in parts if a.startswith(f"{b}.")], "one part in another"
    assert layers[list(layers)[-1]] == CUDA[1]


def test_what_does_not_fit_is_told_with_its_size(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    spread = dataclasses.replace(checkpoint, device=CUDA[0], others=CUDA[1:])
    monkeypatch.setattr(placement, "free_bytes", lambda device: 100_000)
    with pytest.raises(CheckpointError, match=r"0\.\d MB in fp32, .* 0\.1 MB \+ 0\.1 MB .* on cuda:0, cuda:1"):
        load_weights(spread)


def test_loading_leaves_no_hook_of_accelerate(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `meta` as the second device, and the main device, which accelerate takes at random, named."""
    spread = dataclasses.replace(checkpoint, others=(torch.device("meta"),))
    monkeypatch.setattr(placement, "free_bytes", lambda device: weight_bytes(spread))
    dispatched = []

    def dispatch(model: Any, quantizer: Any, parts: Any, *_: Any) -> None:
        dispatched.append(dispatch_model(model, parts, main_device="cpu"))
        assert any(hasattr(module, "_hf_hook") for module in model.modules())

    monkeypatch.setattr("transformers.modeling_utils.accelerate_dispatch", dispatch)
    model = load_weights(spread)
    assert dispatched == [model]
    assert not any(hasattr(module, "_hf_hook") or hasattr(module, "_old_forward") for module in model.modules())
    layers = placement.place_layers(spread)
    for name, weight in model.named_parameters():
        layer = next((layer for layer in layers if name.startswith(f"{layer}.")), None)
        assert weight.device == (layers[layer] if layer else HERE), name


def test_query_tokens_that_accelerate_left_elsewhere_are_brought_to_the_first_device(checkpoint: Checkpoint) -> None:
    model = load_weights(checkpoint)
    placement.move_inputs_of_parts(model, {"query_tokens": torch.device("meta")})
    assert model.query_tokens.device == torch.device("meta")


@pytest.fixture(params=[0, 1], ids=["even", "odd"])
def spread(
    checkpoint: Checkpoint, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[Blip2Model, Blip2Model]:
    """The same model twice: on one device, and with every other layer on a second one, as far as `Pretend` can tell.

    As on CUDA, linear layers are PyTorch's own.
    """
    monkeypatch.setattr(packing, "is_available", lambda dtype: False)
    one, two = Blip2Model(checkpoint, 4), Blip2Model(checkpoint, 4)
    names = placement.layer_names(checkpoint.config)
    layers = {name: THERE if at % 2 == request.param else HERE for at, name in enumerate(names)}
    parts = placement.device_map(checkpoint.config, layers, HERE)
    for name in names:
        place_module(two.model.get_submodule(name), layers[name])
    placement.move_inputs_of_parts(two.model, parts)
    return one, two


def requests_of(model: Blip2Model) -> list[Request]:
    """Ragged prompts, of images of their own and of one that is shared; enough for the cache to grow and to move."""
    pixels = torch.randint(0, 256, (10, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = model.encode(Batch((), pixels, (), (), tuple(bytes([number]) for number in range(10))))
    word, requests = model.prompt_ids("photo")[-1], []
    for number in range(30):
        image: EncodedImage = images[number % 10 if number < 20 else 0]
        image.uses += 1
        prompt = (*model.prompt_ids("a"), *[word] * (number % 7))
        requests.append(Request(number, image, prompt, (1 + number % 3, 3 + 3 * (number % 9)), (number, 0)))
    for number in range(1, 5):
        images[number].uses -= 1
    return [request for number, request in enumerate(requests) if number not in range(11, 15)]


def written(model: Blip2Model, settings: GenerationSettings) -> dict[Any, Any]:
    return {done.key: (done.token_ids, done.error) for done in model.generate(iter(requests_of(model)), settings)}


@pytest.mark.parametrize(
    "settings",
    [
        GenerationSettings(),
        GenerationSettings(temperature=0.8, repetition_penalty=1.3, scores=True),
        GenerationSettings(num_beams=3, scores=True),
    ],
    ids=["greedy", "sampled", "beams"],
)
def test_two_devices_write_what_one_writes(spread: tuple[Blip2Model, Blip2Model], settings: GenerationSettings) -> None:
    one, two = spread
    with Pretend() as pretend:
        found = written(two, settings)
    assert pretend.mixed == []
    assert found == written(one, settings)
    assert not any(error for _, error in found.values())
    assert pretend.moves > 50


def test_text_features_on_two_devices_are_those_on_one(spread: tuple[Blip2Model, Blip2Model]) -> None:
    one, two = spread
    with Pretend():
        found = two.text_output("a photo of a cat")
    torch.testing.assert_close(found, one.text_output("a photo of a cat"), rtol=0, atol=0)


def test_what_pretends_to_be_elsewhere_may_not_meet_what_is_here() -> None:
    with Pretend() as pretend:
        here, there = torch.ones(2), torch.ones(2, device=THERE)
        assert (there + there).sum().device == there[1:].device == there.device == THERE
        assert (there.to(HERE) + here + torch.tensor(2)).tolist() == [4, 4] and pretend.moves == 1
        for mixed in (lambda: here + there, lambda: here.__setitem__(0, there[0]), lambda: torch.cat([here, there])):
            with pytest.raises(RuntimeError, match="on the same device"):
                mixed()


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two CUDA devices with 9 and 7 MB free, as far as what is asked before a model is loaded."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: ((9_000_000, 7_000_000)[device.index], 10**7))


def test_a_dry_run_says_how_many_layers_go_where(typed: Run, two_gpus: None) -> None:
    ran = typed("caption", EXAMPLES, "--device-map", "auto", "--dtype", "fp32", "--dry-run")
    told = dict(line.split(maxsplit=1) for line in ran.out.splitlines())
    assert told["precision"] == "fp32 on cuda:0, cuda:1, batches of auto"
    assert told["memory"] == "9.4 MB of weights, 9.0 MB + 7.0 MB free"
    assert told["layers"] == "0 on cuda:0, 3 on cuda:1"


def test_a_dry_run_refuses_what_does_not_fit(typed: Run, two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5_000_000, 10**7))
    ran = typed("caption", EXAMPLES, "--device-map", "auto", "--dtype", "fp32", "--dry-run")
    assert (ran.code, len(ran.err.splitlines())) == (1, 2)
    assert "tiny takes 9.4 MB in fp32, too much for the 5.0 MB + 5.0 MB that are free on cuda:0, cuda:1" in ran.err


@pytest.mark.parametrize("other", [("--device", "cuda:0"), ("--devices", "all")])
def test_it_goes_with_no_other_choice_of_devices(typed: Run, two_gpus: None, other: tuple[str, ...]) -> None:
    ran = typed("caption", EXAMPLES, "--device-map", "auto", *other)
    assert (ran.code, len(ran.err.splitlines())) == (2, 2)
    assert f"{other[0]} cannot be used with --device-map" in ran.err


@pytest.mark.parametrize(("count", "seen"), [(0, "none"), (1, "1")])
def test_it_needs_several_devices(typed: Run, monkeypatch: pytest.MonkeyPatch, count: int, seen: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    ran = typed("caption", EXAMPLES, "--device-map", "auto")
    assert ran.code == 2
    assert f"--device-map auto is for several CUDA devices, and this PyTorch sees {seen}" in ran.err


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("settings", [GenerationSettings(), GenerationSettings(num_beams=3)], ids=["greedy", "beams"])
def test_two_gpus_write_what_one_writes(
    checkpoint: Checkpoint, settings: GenerationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Blip2Model(dataclasses.replace(checkpoint, device=CUDA[0]), 4)
    monkeypatch.setattr(placement, "free_bytes", lambda device: weight_bytes(checkpoint))
    two = Blip2Model(dataclasses.replace(checkpoint, device=CUDA[0], others=CUDA[1:]), 4)
    assert {weight.device for weight in two.model.parameters()} == set(CUDA)
    assert written(two, settings) == written(one, settings)
