"""ITC and ITM equal `Blip2ForImageTextRetrieval` on one image and one text at a time, whatever stands beside them."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from blip2cli.errors import CheckpointError
from blip2cli.images.decode import Reading
from blip2cli.images.loader import Loading, load
from blip2cli.inputs import ColumnChoice, open_source
from blip2cli.model import load_model
from blip2cli.model.batches import Failed
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.retrieval import RetrievalModel, SeenImage
from blip2cli.records import Batch, RowError
from blip2cli.settings import ModelSettings
from tests.conftest import INT8, Reference

TEXTS = ["a red circle", "gray", "a blue triangle and a gray rectangle and a green circle", "is it red? é"]


def model_of(checkpoint: Path, batch_size: int | None = None, dtype: Any = "fp32") -> RetrievalModel:
    model = load_model(
        find_checkpoint(ModelSettings(str(checkpoint), dtype=dtype, device="cpu"), "retrieval"), batch_size
    )
    assert isinstance(model, RetrievalModel)
    return model


def batches(model: RetrievalModel, photos: Path, size: int = 5) -> Iterator[Batch]:
    rows = open_source([str(photos)], ColumnChoice()).rows()
    return load(rows, Reading(model.checkpoint.images.side), size, Loading(workers=0))


def seen(model: RetrievalModel, photos: Path) -> dict[str, SeenImage]:
    """Every image by its path."""
    return {
        row.image.path: image
        for batch in batches(model, photos)
        for row, image in zip(batch.rows, model.see(batch), strict=True)
    }


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_scores_equal_transformers_on_one_pair_at_a_time(
    retrieval_checkpoint: Path, photos: Path, retrieval_reference: Reference, batch_size: int
) -> None:
    model = model_of(retrieval_checkpoint, batch_size)
    images, texts = seen(model, photos), model.read(TEXTS)
    pairs = [(image, text) for image in images.values() for text in texts]
    itc = torch.tensor(model.itc_of_pairs(pairs)).view(12, len(TEXTS))
    itm = model.itm(pairs)
    expected_itc = torch.cat(
        [retrieval_reference(path, text, False).logits_per_image for path in images for text in TEXTS]
    )
    torch.testing.assert_close(itc.flatten(), expected_itc.flatten(), rtol=0, atol=1e-5)
    logits = torch.cat([retrieval_reference(path, text, True).logits_per_image for path in images for text in TEXTS])
    torch.testing.assert_close(torch.tensor(itm), logits.softmax(-1)[:, 1], rtol=0, atol=1e-5)
    assert min(itc.std(0).min(), itc.std(1).min(), torch.tensor(itm).view(12, -1).std(0).min()) > 0.001, (
        "the random model's scores must differ for this to say much"
    )


def test_features_equal_the_normalised_projections(
    retrieval_checkpoint: Path, photos: Path, retrieval_reference: Reference
) -> None:
    model = model_of(retrieval_checkpoint)
    for path, image in seen(model, photos).items():
        theirs = retrieval_reference(path, TEXTS[0], False)
        torch.testing.assert_close(image.projected, theirs.image_embeds[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(model.text_projections(TEXTS[:1])[0], theirs.text_embeds[0], rtol=0, atol=1e-5)


def test_texts_are_padded_on_the_right_whatever_the_tokenizer_says(retrieval_checkpoint: Path) -> None:
    model = model_of(retrieval_checkpoint)
    assert model.tokenizer.padding_side == "left"
    together = model.text_projections(TEXTS)
    alone = [model_of(retrieval_checkpoint).text_projections([text])[0] for text in TEXTS]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_berts_tokenizer_is_used_as_the_published_checkpoints_have_it(
    retrieval_checkpoint: Path, tmp_path: Path
) -> None:
    from transformers import BertTokenizerFast

    folder = shutil.copytree(retrieval_checkpoint, tmp_path / "bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[", "]", "sep", "a", "cat", "dog", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        (folder / name).unlink(missing_ok=True)
    BertTokenizerFast(str(tmp_path / "vocab.txt"), bos_token="[DEC]").save_pretrained(folder)
    read = model_of(folder).read(["A cats", "a cat [SEP] dog"])
    assert [[words[at] for at in text.ids] for text in read] == [
        ["[CLS]", "a", "cat", "##s", "[SEP]"],
        ["[CLS]", "a", "cat", "[", "sep", "]", "dog", "[SEP]"],
    ]


def test_a_text_without_room_fails_alone(retrieval_checkpoint: Path) -> None:
    model = model_of(retrieval_checkpoint)
    good, long, endless = model.read(["a red circle", "red" + " red" * 62, "x" * 100_000])
    assert not isinstance(good, Failed)
    assert long == Failed(RowError("text-too-long", "65 tokens, 64 fit"))
    assert str(endless.error).startswith("text-too-long: 100000 characters")
    assert not isinstance(model.read(["red" + " red" * 61])[0], Failed)


@pytest.mark.parametrize("dtype", ["bf16", INT8])
def test_other_precisions_score_nearly_the_same(retrieval_checkpoint: Path, photos: Path, dtype: str) -> None:
    ours, exact = model_of(retrieval_checkpoint, dtype=dtype), model_of(retrieval_checkpoint)
    scores = []
    for model in (ours, exact):
        pairs = [(image, text) for image in seen(model, photos).values() for text in model.read(TEXTS)]
        scores.append(torch.tensor([model.itc_of_pairs(pairs), model.itm(pairs)]))
    torch.testing.assert_close(*scores, rtol=0, atol=0.1)


def test_the_q_former_stays_in_fp32_where_the_rest_is_fp16(retrieval_checkpoint: Path) -> None:
    model = model_of(retrieval_checkpoint, dtype="fp16")
    assert {weight.dtype for weight in model.model.qformer.parameters()} == {torch.float32}
    assert model.model.vision_model.encoder.layers[0].mlp.fc1.weight.dtype == torch.float16
    assert model.text_projections(["a red circle"])[0].dtype == torch.float32


def test_a_checkpoint_of_the_other_kind_is_refused(retrieval_checkpoint: Path, opt_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="no heads that compare"):
        find_checkpoint(ModelSettings(str(opt_checkpoint)), "retrieval")
    with pytest.raises(CheckpointError, match="cannot write texts"):
        find_checkpoint(ModelSettings(str(retrieval_checkpoint)), "generation")
    assert find_checkpoint(ModelSettings(str(retrieval_checkpoint))).kind == "retrieval"


def test_weights_tell_the_kind_where_the_config_does_not(retrieval_checkpoint: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig

    shutil.copytree(retrieval_checkpoint, tmp_path / "bare")
    config = AutoConfig.from_pretrained(retrieval_checkpoint)
    config.architectures = None
    config.save_pretrained(tmp_path / "bare")
    assert find_checkpoint(ModelSettings(str(tmp_path / "bare"))).kind == "retrieval"
    weights = load_file(tmp_path / "bare" / "model.safetensors")
    save_file({name: weight for name, weight in weights.items() if not name.startswith("itm_head")},
              tmp_path / "bare" / "model.safetensors", {"format": "pt"})  # fmt: skip
    with pytest.raises(
        CheckpointError, match=r"is missing .* language_model"
    ):  # by its weights it is of the other kind
        find_checkpoint(ModelSettings(str(tmp_path / "bare")))
