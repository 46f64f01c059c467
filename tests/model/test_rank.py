"""A captioner and its ranker: the image is encoded once where the vision weights are the same, by their content."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from blip2cli.errors import CheckpointError, UsageError
from blip2cli.images.decode import Reading
from blip2cli.images.loader import Loading, load
from blip2cli.model import load_model
from blip2cli.model.batches import Failed
from blip2cli.model.blip2 import Blip2Model
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.checkpoint.rank import find_ranker, ranker_bytes
from blip2cli.model.checkpoint.record import Checkpoint
from blip2cli.model.checkpoint.size import weight_bytes
from blip2cli.model.retrieval import RetrievalModel
from blip2cli.records import Batch, ImageRef, Row
from blip2cli.settings import ModelSettings
from blip2cli.tiny import RETRIEVAL_DIR
from tests.conftest import INT8

IMAGES = sorted((Path(__file__).parents[2] / "docs" / "examples").glob("*.png"))
CPU = ModelSettings("tiny", device="cpu", dtype="fp32")
Change = Callable[[dict[str, torch.Tensor]], None]


def changed(folder: Path, change: Change) -> ModelSettings:
    """The bundled retrieval model under another name, with other weights."""
    shutil.copytree(RETRIEVAL_DIR, folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return replace(CPU, model=str(folder))


def with_ranker(settings: ModelSettings = CPU, captioner: ModelSettings = CPU) -> Checkpoint:
    checkpoint = find_checkpoint(captioner, "generation")
    return replace(checkpoint, ranker=find_ranker(settings, checkpoint))


def batch_of(paths: list[Path]) -> Batch:
    rows = (Row(number, str(path), ImageRef(str(path))) for number, path in enumerate(paths))
    return next(load(rows, Reading(64), len(paths), Loading(workers=0)))


def images_through(module: torch.nn.Module) -> list[int]:
    """How many images each call of a module gets, once it is called."""
    counts: list[int] = []
    module.register_forward_hook(lambda module, arguments, output: counts.append(len(output)))
    return counts


def as_stored_in_fp32(weights: dict[str, torch.Tensor]) -> None:
    weights.update({name: weight.float() for name, weight in weights.items()})


def other_last_norm(weights: dict[str, torch.Tensor]) -> None:
    weights["vision_model.post_layernorm.weight"] *= 1.25


def other_patches(weights: dict[str, torch.Tensor]) -> None:
    weights["vision_model.embeddings.patch_embedding.bias"][0] += 0.5


@pytest.mark.parametrize(
    ("change", "shared"), [(as_stored_in_fp32, True), (other_last_norm, True), (other_patches, False)]
)
def test_an_image_goes_once_through_vision_weights_that_are_equal(tmp_path: Path, change: Change, shared: bool) -> None:
    settings = changed(tmp_path / "renamed", change)
    checkpoint = with_ranker(settings)
    assert checkpoint.ranker is not None and checkpoint.ranker.shares_vision is shared
    model = load_model(checkpoint, 4)
    assert (model.ranker.model.vision_model.encoder is model.model.vision_model.encoder) is shared
    layers = [each.model.vision_model.encoder.layers[0] for each in (model, model.ranker)]
    counts = [images_through(layer) for layer in dict.fromkeys(layers)]
    encoded = model.encode_to_rank(batch_of(IMAGES))
    assert [sum(count) for count in counts] == ([4] if shared else [4, 4])

    alone = RetrievalModel(find_checkpoint(settings, "retrieval"), 4)
    plain = load_model(find_checkpoint(CPU), 4)
    for image, seen, embeds in zip(encoded, alone.see(batch_of(IMAGES)), plain.encode(batch_of(IMAGES)), strict=True):
        assert not isinstance(seen, Failed) and image.seen is not None
        torch.testing.assert_close(image.seen.image_embeds, seen.image_embeds)
        torch.testing.assert_close(image.seen.projected, seen.projected)
        torch.testing.assert_close(image.query_embeds, embeds.query_embeds)


def test_weights_that_are_shared_are_counted_once(tmp_path: Path) -> None:
    shared = with_ranker().ranker
    own = with_ranker(changed(tmp_path / "own", other_patches)).ranker
    assert shared is not None and own is not None
    assert ranker_bytes(own) == weight_bytes(own.checkpoint)
    vision = sum(weight.numel() * 4 for name, weight in load_file(RETRIEVAL_DIR / "model.safetensors").items()
                 if name.startswith("vision_model.") and "post_layernorm" not in name)  # fmt: skip
    assert ranker_bytes(own) - ranker_bytes(shared) == vision


@pytest.mark.parametrize("dtype", ["bf16", INT8])
def test_the_ranker_has_the_precision_of_the_captioner(dtype: str) -> None:
    checkpoint = with_ranker(captioner=replace(CPU, dtype=dtype))  # type: ignore[arg-type]
    assert checkpoint.ranker is not None and checkpoint.ranker.checkpoint.precision == dtype
    model = load_model(checkpoint)
    encoded = model.encode_to_rank(batch_of(IMAGES[:1]))
    assert encoded[0].seen is not None and encoded[0].error is None


def test_a_device_is_that_of_both() -> None:
    moved = with_ranker().on(torch.device("cuda:1"))
    assert moved.ranker is not None
    assert moved.device == moved.ranker.checkpoint.device == torch.device("cuda:1")


def test_a_batch_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Blip2Model = load_model(with_ranker(), 4)
    assert model.ranker is not None
    features_of = model.ranker.features_of

    def short_of_memory(image_embeds: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if len(image_embeds) > 2:
            raise torch.OutOfMemoryError
        return features_of(image_embeds)

    monkeypatch.setattr(model.ranker, "features_of", short_of_memory)
    encoded = model.encode_to_rank(batch_of(IMAGES))
    assert model.batch_size == 2 and all(image.seen is not None for image in encoded)


def test_an_image_that_fails_alone_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Blip2Model = load_model(with_ranker(), 4)
    query_embeds_of = model.encoder.query_embeds_of
    monkeypatch.setattr(model.encoder, "query_embeds_of", lambda embeds: query_embeds_of(embeds) * torch.nan)
    (image,) = model.encode_to_rank(batch_of(IMAGES[:1]))
    assert image.error is not None and "not finite" in image.error.detail


def test_a_ranker_for_other_images_is_refused(retrieval_checkpoint: Path) -> None:
    with pytest.raises(UsageError, match=r"--rank-model .* takes images of 32 pixels, and tiny of 64"):
        with_ranker(replace(CPU, model=str(retrieval_checkpoint)))


def test_a_captioner_cannot_rank(opt_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"^--rank-model: .* no heads that compare"):
        with_ranker(replace(CPU, model=str(opt_checkpoint)))
