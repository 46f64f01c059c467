"""Texts and features are those of transformers, run on one image at a time in fp32."""

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageOps

from blip2cli.images.decode import Reading
from blip2cli.images.loader import Loading, load
from blip2cli.inputs import ColumnChoice, open_source
from blip2cli.model.blip2 import Blip2Model
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.decoding.requests import Request
from blip2cli.settings import GenerationSettings, ModelSettings
from tests.conftest import ENDS

PROMPTS = [None, "a photo of", "Question: how many shapes are there in this picture? Answer:", "Question: red? Answer:"]

SETTINGS = {
    "greedy": GenerationSettings(),
    "greedy with bounds": GenerationSettings(min_new_tokens=5, repetition_penalty=1.7),
    "beams": GenerationSettings(num_beams=3),
    "beams with penalties": GenerationSettings(
        num_beams=4, length_penalty=-1.0, repetition_penalty=1.3, min_new_tokens=2
    ),
}


@pytest.fixture(params=["opt", "t5"])
def checkpoint(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(f"{request.param}_checkpoint")


def ours(checkpoint: Path, photos: Path, settings: GenerationSettings, batch_size: int, prompts: list) -> dict:
    model = Blip2Model(find_checkpoint(ModelSettings(model=str(checkpoint), dtype="fp32", device="cpu")), batch_size)
    rows = open_source([str(photos)], ColumnChoice()).rows()
    requests = []
    reading = Reading(model.checkpoint.images.side, fitting=model.checkpoint.images.fitting)
    for batch in load(rows, reading, batch_size, Loading(workers=0)):
        for row, image in zip(batch.rows, model.encode(batch), strict=True):
            for at, prompt in enumerate(prompts):
                if (row.index + at) % 3 or len(prompts) == 1:  # ragged: not every image gets every prompt
                    image.uses += 1
                    key = (row.name, prompt)
                    requests.append(Request(key, image, model.prompt_ids(prompt), (settings.min_new_tokens, 12)))
    return {done.key: done.token_ids for done in model.generate(iter(requests), settings)}


def theirs(checkpoint: Path, keys: list, settings: GenerationSettings) -> dict:
    from transformers import Blip2ForConditionalGeneration, Blip2Processor

    model = Blip2ForConditionalGeneration.from_pretrained(checkpoint).eval()
    processor = Blip2Processor.from_pretrained(checkpoint, backend="pil")
    encoder_decoder = model.config.text_config.is_encoder_decoder
    written = {}
    for name, prompt in keys:
        with Image.open(name) as image:
            inputs = processor(images=ImageOps.exif_transpose(image), text=prompt, return_tensors="pt")
        ids = model.generate(
            **inputs,
            do_sample=False,
            num_beams=settings.num_beams,
            max_new_tokens=12,
            min_new_tokens=settings.min_new_tokens or None,
            repetition_penalty=settings.repetition_penalty,
            length_penalty=settings.length_penalty,
        )[0].tolist()
        prompted = inputs["input_ids"].shape[1] if prompt else model.config.num_query_tokens + 1
        new = ids[1:] if encoder_decoder else ids[prompted:]
        written[name, prompt] = tuple(itertools.takewhile(lambda token: token not in ENDS, new))
    return written


@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_text_equals_generate_on_one_image(
    checkpoint: Path, photos: Path, settings: GenerationSettings, batch_size: int
) -> None:
    texts = ours(checkpoint, photos, settings, batch_size, PROMPTS)
    assert texts == theirs(checkpoint, list(texts), settings)
    lengths = {len(ids) for ids in texts.values()}
    assert len(lengths) > 1 and len(set(texts.values())) > 12, (
        "the random model's texts must differ for this to say much"
    )


def test_settings_of_the_image_processor_change_texts_as_they_do_there(
    opt_checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(opt_checkpoint, tmp_path / "opt")
    saved = json.loads((folder / "processor_config.json").read_text())
    saved["image_processor"] |= {"do_normalize": False, "resample": 0, "size": {"shortest_edge": 32}}
    saved["image_processor"] |= {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}}
    (folder / "processor_config.json").write_text(json.dumps(saved))
    settings = SETTINGS["greedy"]
    texts = ours(folder, photos, settings, 5, PROMPTS[:1])
    assert texts == theirs(folder, list(texts), settings)
    assert texts != ours(opt_checkpoint, photos, settings, 5, PROMPTS[:1])


def test_old_checkpoints_give_the_same_texts(opt_checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(opt_checkpoint, old)
    for file, name in (("config.json", "image_token_index"), ("processor_config.json", "num_query_tokens")):
        saved = json.loads((old / file).read_text())
        del saved[name]
        (old / file).write_text(json.dumps(saved))
    tokenizer = json.loads((old / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["content"] != "<image>"]
    (old / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = SETTINGS["greedy"]
    assert ours(old, photos, settings, 4, PROMPTS) == ours(opt_checkpoint, photos, settings, 4, PROMPTS)


def test_features_equal_transformers(opt_checkpoint: Path, photos: Path) -> None:
    from transformers import Blip2Model as TheirModel
    from transformers import Blip2Processor

    reference = TheirModel.from_pretrained(opt_checkpoint).eval()
    processor = Blip2Processor.from_pretrained(opt_checkpoint, backend="pil")
    model = Blip2Model(find_checkpoint(ModelSettings(model=str(opt_checkpoint), dtype="fp32", device="cpu")), 5)
    rows = open_source([str(photos)], ColumnChoice()).rows()
    for batch in load(rows, Reading(model.checkpoint.images.side), 5, Loading(workers=0)):
        qformer, vision = model.query_output(batch), model.vision_output(batch)
        for at, row in enumerate(batch.rows):
            pixels = processor(images=Image.open(row.image.path), return_tensors="pt")["pixel_values"]
            torch.testing.assert_close(model.encoder.normalize(batch.pixels[at : at + 1]), pixels, rtol=0, atol=0)
            with torch.no_grad():
                torch.testing.assert_close(qformer[at], reference.get_qformer_features(pixels)[0], rtol=0, atol=1e-5)
                pooled = reference.get_image_features(pixels).pooler_output[0]
            torch.testing.assert_close(vision[at], pooled, rtol=0, atol=1e-5)


def test_text_features_equal_transformers(checkpoint: Path) -> None:
    from transformers import AutoTokenizer
    from transformers import Blip2Model as TheirModel

    reference = TheirModel.from_pretrained(checkpoint).eval()
    ids = AutoTokenizer.from_pretrained(checkpoint)("a red circle", return_tensors="pt")
    model = Blip2Model(find_checkpoint(ModelSettings(model=str(checkpoint), dtype="fp32", device="cpu")))
    with torch.no_grad():
        expected = reference.get_text_features(ids["input_ids"], ids["attention_mask"]).last_hidden_state[0]
    torch.testing.assert_close(model.text_output("a red circle"), expected, rtol=0, atol=1e-5)
