"""Settings of a checkpoint's image processor: followed as transformers' PIL processor does, or refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blip2cli.errors import CheckpointError, ImageError
from blip2cli.images.decode import Reading, decode
from blip2cli.model import load_model
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.checkpoint.processor import image_settings
from blip2cli.model.encoder import Encoder
from blip2cli.settings import ModelSettings

SIDE = 32

SIZES = [(90, 40), (40, 90), (33, 32), (32, 32), (20, 20), (31, 64), (7, 200), (1, 1)]
"""Widths and heights of images."""

FOLLOWED: dict[str, dict[str, Any]] = {
    "BLIP-2's own": {},
    "not normalised": {"do_normalize": False},
    "not rescaled": {"do_rescale": False},
    "neither": {"do_normalize": False, "do_rescale": False},
    "another factor": {"rescale_factor": 1 / 127.5, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.5, 1.0]},
    "an odd factor": {"rescale_factor": 0.0123, "do_normalize": False},
    "one number": {"image_mean": 0.5, "image_std": 0.25},
    "nearest": {"resample": 0},
    "Lanczos": {"resample": 1},
    "bilinear": {"resample": 2},
    "box": {"resample": 4},
    "Hamming": {"resample": 5},
    "a number": {"size": SIDE},
    "a list": {"size": [SIDE, SIDE]},
    "nothing said": {"size": None, "resample": None, "image_mean": None, "do_normalize": None},
    "cropped": {"do_center_crop": True, "crop_size": SIDE, "size": {"height": 48, "width": 40}},
    "cropped by one": {"do_center_crop": True, "crop_size": [SIDE, SIDE], "size": {"height": 33, "width": 35}},
    "cropped from too small": {"do_center_crop": True, "crop_size": SIDE, "size": {"height": 25, "width": 40}},
    "as CLIP does": {"do_center_crop": True, "crop_size": SIDE, "size": {"shortest_edge": SIDE}},
    "by the shorter side": {"do_center_crop": True, "crop_size": SIDE, "size": 45, "default_to_square": False},
    "by both sides": {
        "do_center_crop": True, "crop_size": SIDE, "size": {"shortest_edge": 40, "longest_edge": 50}
    },
    "only cropped": {"do_resize": False, "do_center_crop": True, "crop_size": SIDE},
    "padded by nothing": {"do_pad": True, "pad_size": {"height": SIDE, "width": SIDE}},
    "not converted": {"do_convert_rgb": False},
    "unknown to BLIP": {"do_thumbnail": True, "feature_extractor_type": "x"},
}  # fmt: skip

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"size": {"longest_edge": SIDE}}, "size"),
    ({"size": {"shortest_edge": SIDE}}, "size"),
    ({"size": {"height": SIDE, "width": 16}}, "size"),
    ({"size": {"height": 2 * SIDE, "width": 2 * SIDE}}, "size"),
    ({"size": SIDE, "default_to_square": False}, "size"),
    ({"size": 224}, "size"),
    ({"size": {"max_height": SIDE, "max_width": SIDE}}, "size"),
    ({"size": {"height": SIDE}}, "size"),
    ({"size": {"height": -1, "width": -1}}, "size"),
    ({"size": {"height": 10**9, "width": 10**9}, "do_center_crop": True, "crop_size": SIDE}, "size"),
    ({"size": "large"}, "size"),
    ({"size": {}}, "size"),
    ({"do_resize": False}, "do_resize"),
    ({"do_resize": "yes"}, "do_resize"),
    ({"do_center_crop": True}, "crop_size"),
    ({"do_center_crop": True, "crop_size": 16}, "crop_size"),
    ({"do_pad": True, "pad_size": {"height": 64, "width": 64}}, "pad_size"),
    ({"resample": 6}, "resample"),
    ({"resample": "bicubic"}, "resample"),
    ({"resample": True}, "resample"),
    ({"image_mean": [0.5]}, "image_mean"),
    ({"image_mean": ["a", "b", "c"]}, "image_mean"),
    ({"image_std": [1, 0, 1]}, "image_std"),
    ({"rescale_factor": "1/255"}, "rescale_factor"),
    ({"do_normalize": 1}, "do_normalize"),
    ({"image_processor_type": "CLIPImageProcessor"}, "image_processor_type"),
]


def saved(folder: Path, settings: dict[str, Any]) -> Path:
    """A folder with these settings of a processor, and BLIP-2's for all else."""
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    return folder


def encoder_of(folder: Path, checkpoint: Path) -> Encoder:
    model = load_model(find_checkpoint(ModelSettings(str(checkpoint), dtype="fp32", device="cpu"))).model
    return Encoder(model, image_settings(folder, SIDE))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(3)
    files = []
    for number, (width, height) in enumerate(SIZES):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        files.append(folder / f"{number}.png")
        Image.fromarray(pixels).save(files[-1])
    return files


@pytest.mark.parametrize("settings", FOLLOWED.values(), ids=FOLLOWED)
def test_pixels_are_those_of_transformers(
    settings: dict[str, Any], images: list[Path], tmp_path: Path, opt_checkpoint: Path
) -> None:
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    folder = saved(tmp_path, settings)
    theirs = BlipImageProcessorPil.from_pretrained(folder)
    if settings.get("size", SIDE) is None:  # its default is not the model's
        theirs = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    ours = image_settings(folder, SIDE)
    encoder = encoder_of(folder, opt_checkpoint)
    for file in images:
        pixels = decode(file.read_bytes(), Reading(SIDE, fitting=ours.fitting))
        assert pixels.shape == (SIDE, SIDE, 3)
        with Image.open(file) as image:
            expected = theirs(image, return_tensors="pt")["pixel_values"].float()
        torch.testing.assert_close(encoder.normalize(torch.from_numpy(pixels.copy())[None]), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("settings", "name"), REFUSED, ids=str)
def test_what_is_not_followed_is_refused_by_name(settings: dict[str, Any], name: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, settings)
    with pytest.raises(CheckpointError) as error:
        image_settings(folder, SIDE)
    assert error.value.message.startswith(f"{folder / 'preprocessor_config.json'}: {name} ") and error.value.hint


def test_blip2s_own_settings_are_computed_and_others_looked_up(tmp_path: Path, opt_checkpoint: Path) -> None:
    assert encoder_of(saved(tmp_path, {}), opt_checkpoint).can_compute
    assert not encoder_of(saved(tmp_path, {"do_normalize": False}), opt_checkpoint).can_compute


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "I;16", "LA"])
def test_colours_that_are_not_converted_are_refused(mode: str, tmp_path: Path) -> None:
    grey = np.arange(1024, dtype=np.uint16).reshape(32, 32)
    image = Image.fromarray(grey) if mode == "I;16" else Image.new(mode, (32, 32))
    file = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(file)
    fitting = image_settings(saved(tmp_path, {"do_convert_rgb": False}), SIDE).fitting
    with pytest.raises(ImageError, match=r"unsupported: mode .*do_convert_rgb"):
        decode(file.read_bytes(), Reading(SIDE, fitting=fitting))


def test_an_image_that_would_grow_without_bound_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (1, 20_000)).save(tmp_path / "a.png")
    settings = {"do_center_crop": True, "crop_size": SIDE, "size": {"shortest_edge": 224}}
    fitting = image_settings(saved(tmp_path, settings), SIDE).fitting
    with pytest.raises(ImageError, match="too-large"):
        decode((tmp_path / "a.png").read_bytes(), Reading(SIDE, fitting=fitting))


def test_the_file_at_fault_is_named(opt_checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(opt_checkpoint, tmp_path / "opt")
    file = folder / "processor_config.json"
    told = json.loads(file.read_text())
    told["image_processor"].update(size={"height": 16, "width": 16})
    file.write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match=r"processor_config.json: size .* is not the model's size, 32 x 32"):
        find_checkpoint(ModelSettings(str(folder), device="cpu"))
