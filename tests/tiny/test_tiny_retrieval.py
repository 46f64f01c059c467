"""The bundled retrieval model: small, safe to load, and able to match, through plain transformers."""

import json
import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
)

from blip2cli.tiny import MODEL_DIR, RETRIEVAL_DIR
from blip2cli.tiny.architecture import build_retrieval_config, export, new_retrieval_model
from blip2cli.tiny.batches import pixel_tensor
from blip2cli.tiny.heads import contrastive_scores, image_features, match_logits, text_features, tokens_of
from blip2cli.tiny.retrieval_batches import choose_pairs, described_batches
from blip2cli.tiny.retrieval_stage import ContrastiveLoss, train_retrieval
from blip2cli.tiny.retrieval_validation import Gallery, gallery, retrieval_figures
from blip2cli.tiny.scenes import render, scene_stream
from blip2cli.tiny.statements import Thing, told
from blip2cli.tiny.tokenizer import build_retrieval_tokenizer, build_tokenizer

SEED = 5_000_011


@pytest.fixture(scope="module")
def model() -> Blip2ForImageTextRetrieval:
    loaded: Blip2ForImageTextRetrieval = Blip2ForImageTextRetrieval.from_pretrained(RETRIEVAL_DIR, use_safetensors=True)
    return loaded


@pytest.fixture(scope="module")
def processor() -> Blip2Processor:
    return Blip2Processor.from_pretrained(RETRIEVAL_DIR)


@pytest.fixture(scope="module")
def held_out() -> Gallery:
    return gallery(SEED, 48)


def test_it_takes_at_most_5_mb_and_its_weights_are_safetensors() -> None:
    files = [file for file in RETRIEVAL_DIR.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 5_000_000
    assert {file.suffix for file in files} == {".safetensors", ".json"}


def test_the_scripts_build_its_configuration_and_tokenizer(
    model: Blip2ForImageTextRetrieval, processor: Blip2Processor
) -> None:
    tokenizer = build_retrieval_tokenizer()
    built = build_retrieval_config(len(tokenizer)).to_dict()
    loaded = model.config.to_dict()
    for part in ("vision_config", "qformer_config"):
        assert {**loaded[part], "dtype": None} == built[part]
    assert (loaded["image_text_hidden_size"], loaded["num_query_tokens"]) == (64, 8)
    saved, fresh = (json.loads(one.backend_tokenizer.to_str()) for one in (processor.tokenizer, tokenizer))
    for part in ("normalizer", "pre_tokenizer", "model", "post_processor", "added_tokens"):
        assert saved[part] == fresh[part]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_its_images_are_prepared_as_for_the_captions(processor: Blip2Processor) -> None:
    captions = Blip2Processor.from_pretrained(MODEL_DIR)
    assert processor.image_processor.to_dict() == captions.image_processor.to_dict()
    assert processor.num_query_tokens == captions.num_query_tokens == 8


def test_plain_calls_of_the_tokenizer_lay_text_out_as_bert_does() -> None:
    tokenizer = AutoTokenizer.from_pretrained(RETRIEVAL_DIR)
    encoded = tokenizer(["Red circle", "a picture of a red circle"], padding=True)
    words = [tokenizer.convert_ids_to_tokens(ids) for ids in encoded.input_ids]
    assert words[0] == ["<s>", "Ġred", "Ġcircle", "</s>", "<pad>", "<pad>", "<pad>", "<pad>"]
    assert words[1] == ["<s>", "Ġa", "Ġpicture", "Ġof", "Ġa", "Ġred", "Ġcircle", "</s>"]
    assert encoded.attention_mask[0] == [1, 1, 1, 1, 0, 0, 0, 0]
    assert len(tokenizer("circle " * 99, truncation=True).input_ids) == tokenizer.model_max_length == 32


def test_both_tokenizers_have_one_vocabulary() -> None:
    assert build_retrieval_tokenizer().get_vocab() == build_tokenizer().get_vocab()


def test_the_pieces_equal_the_classes_own_forward(
    model: Blip2ForImageTextRetrieval, processor: Blip2Processor, held_out: Gallery
) -> None:
    images, texts = [render(scene) for scene in held_out.scenes[:6]], held_out.captions[:6]
    both = processor(images=images, text=texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        image_embeds = model.vision_model(both["pixel_values"]).last_hidden_state
        tokens = tokens_of(texts, processor.tokenizer)
        features = text_features(model, tokens)
        scores = contrastive_scores(image_features(model, image_embeds), features)
        torch.testing.assert_close(scores, model(**both).logits_per_image)
        logits = match_logits(model, image_embeds, tokens)
        torch.testing.assert_close(logits, model(**both, use_image_text_matching_head=True).logits_per_image)


def test_held_out_images_and_captions_find_each_other(model: Blip2ForImageTextRetrieval, held_out: Gallery) -> None:
    figures = retrieval_figures(model, build_retrieval_tokenizer(), held_out)
    assert {name: sum(right) for name, right in figures.items() if sum(right) < 40} == {}


@pytest.mark.parametrize(
    ("query", "thing"),
    [
        ("a red circle", Thing("red", "circle")),
        ("red circle", Thing("red", "circle")),
        ("Picture of a red circle.", Thing("red", "circle")),
        ("red circles", Thing("red", "circle")),
        ("circle", Thing(None, "circle")),
        ("a grey shape", Thing("gray", None)),
    ],
)
def test_short_queries_find_what_shows_just_that_before_what_shows_more_before_all_else(
    model: Blip2ForImageTextRetrieval, query: str, thing: Thing
) -> None:
    scenes = [*islice(scene_stream(SEED + 1, counts=(1,)), 100), *islice(scene_stream(SEED + 2, counts=(2, 3)), 100)]
    with torch.inference_mode():
        pixels = pixel_tensor([np.asarray(render(scene)) for scene in scenes])
        features = image_features(model, model.vision_model(pixels).last_hidden_state)
        tokens = tokens_of([query], build_retrieval_tokenizer())
        scores = contrastive_scores(features, text_features(model, tokens))[:, 0].numpy()
    shown = told([(thing,)], scenes)[0]
    alone, beside_others, absent = scores[:100][shown[:100] > 0], scores[100:][shown[100:] > 0], scores[shown == 0]
    assert min(len(alone), len(beside_others)) >= 2
    assert np.median(alone) > np.max(beside_others)
    assert np.quantile(beside_others, 0.1) > np.quantile(absent, 0.99)


def test_two_steps_change_all_but_the_vision_tower_and_the_result_loads(tmp_path: Path) -> None:
    tokenizer = build_retrieval_tokenizer()
    trained = Blip2ForConditionalGeneration.from_pretrained(MODEL_DIR)
    model = new_retrieval_model(tokenizer, trained, seed=1)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    steps: list[int] = []
    train_retrieval(model, tokenizer, steps=2, seed=1, after_step=steps.append)
    assert steps == [1, 2]
    changed = {name.split(".")[0] for name, value in model.named_parameters() if not torch.equal(before[name], value)}
    assert changed == {
        *("query_tokens", "embeddings", "qformer", "vision_projection", "text_projection", "itm_head"),
    }
    export(model, tokenizer, tmp_path / "model")
    loaded = Blip2ForImageTextRetrieval.from_pretrained(tmp_path / "model")
    assert torch.equal(loaded.itm_head.bias, model.itm_head.bias.half().float())
    assert not (tmp_path / "model" / "generation_config.json").exists()


def test_negatives_are_false_pairs_and_the_likely_ones_more_often() -> None:
    batch = next(described_batches(build_retrieval_tokenizer(), images=16, seed=3))
    torch.manual_seed(0)
    logits = torch.randn(48, 16) * 4
    false = logits[batch.told == 0].mean()
    for _ in range(20):
        pairs = choose_pairs(logits, batch.told)
        true_of_all = (batch.told[pairs.texts] > 0).all(dim=1)  # "a shape" has no negative
        assert pairs.match[:32].all() and not pairs.match[32:][~true_of_all[32:]].any()
        assert torch.equal(pairs.match, (batch.told[pairs.texts, pairs.images] > 0).long())
        assert logits[pairs.texts[32:], pairs.images[32:]].mean() > false + 1.5


def test_what_is_true_of_several_images_is_no_negative() -> None:
    told = torch.tensor([[1.0, 0.5], [0.0, 1.0], [0.0, 0.0]])
    contrast = ContrastiveLoss()
    fitting = torch.tensor([[0.0, -math.log(8)], [-50, 0], [-50, -50]])  # half is told: an eighth of the weight
    one_to_one = torch.tensor([[0.0, -50], [-50, 0], [-50, -50]])
    temperature = contrast.log_temperature.exp()
    assert contrast(fitting * temperature, told).item() < 0.02 < contrast(one_to_one * temperature, told).item()
