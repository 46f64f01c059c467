"""The bundled model: small, safe to load, and able to see, through plain transformers."""

from itertools import islice

import pytest
import torch
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from blip2cli.tiny import MODEL_DIR
from blip2cli.tiny.phrases import HOW_MANY, named_shapes, scene_caption
from blip2cli.tiny.scenes import render, scene_stream
from blip2cli.tiny.validation import generate_texts

SEED = 4_000_037


@pytest.fixture(scope="module")
def model() -> Blip2ForConditionalGeneration:
    loaded: Blip2ForConditionalGeneration = Blip2ForConditionalGeneration.from_pretrained(MODEL_DIR)
    return loaded


@pytest.fixture(scope="module")
def processor() -> Blip2Processor:
    return Blip2Processor.from_pretrained(MODEL_DIR)


def test_it_takes_at_most_8_mb_and_its_weights_are_safetensors() -> None:
    files = [file for file in MODEL_DIR.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 8_000_000
    assert {file.suffix for file in files} == {".safetensors", ".json"}


def test_it_has_what_current_transformers_expects(
    model: Blip2ForConditionalGeneration, processor: Blip2Processor
) -> None:
    assert processor.num_query_tokens == model.config.num_query_tokens
    assert processor.tokenizer.convert_tokens_to_ids("<image>") == model.config.image_token_index
    assert processor.tokenizer("a photo of").input_ids[0] == processor.tokenizer.bos_token_id == 2
    assert processor.tokenizer.padding_side == "left"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_it_captions_one_shape(model: Blip2ForConditionalGeneration, processor: Blip2Processor) -> None:
    scenes = list(islice(scene_stream(SEED, counts=(1,)), 60))
    texts = generate_texts(model, processor, [render(scene) for scene in scenes], [""] * 60)
    right = sum(text == scene_caption(scene) for text, scene in zip(texts, scenes, strict=True))
    assert right >= 58


def test_it_names_all_of_up_to_three_shapes(model: Blip2ForConditionalGeneration, processor: Blip2Processor) -> None:
    scenes = list(islice(scene_stream(SEED + 1), 90))
    texts = generate_texts(model, processor, [render(scene) for scene in scenes], ["a photo of"] * 90)
    right = sum(
        named_shapes(text) == named_shapes(scene_caption(scene)) for text, scene in zip(texts, scenes, strict=True)
    )
    assert right >= 86


def test_prompts_of_several_lengths_and_cases_share_a_batch(
    model: Blip2ForConditionalGeneration, processor: Blip2Processor
) -> None:
    scenes = list(islice(scene_stream(SEED + 2, counts=(1,)), 30))
    prompts = ["", f"QUESTION: {HOW_MANY} Answer:", "Question: What Colour is the shape? Answer:"] * 10
    texts = generate_texts(model, processor, [render(scene) for scene in scenes], prompts)
    wanted = [(scene_caption(scene), "1", scene.shapes[0].colour)[index % 3] for index, scene in enumerate(scenes)]
    assert sum(text == want for text, want in zip(texts, wanted, strict=True)) >= 27


def test_every_text_ends_by_itself(model: Blip2ForConditionalGeneration, processor: Blip2Processor) -> None:
    images = [render(scene) for scene in islice(scene_stream(SEED + 3), 30)]
    inputs = processor(images=images, text=["a photo of"] * 30, padding=True, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=30)
    assert (output[:, inputs["input_ids"].shape[1] :] == processor.tokenizer.eos_token_id).any(dim=1).all()
