"""Checkpoints that are on this machine, and what can be known of them before torch and
transformers are imported."""

from __future__ import annotations

import os
from pathlib import Path

from blip2cli.model.checkpoint.files import json_object
from blip2cli.model.checkpoint.hub import hub_folder
from blip2cli.model.checkpoint.processor import ImageSettings, image_settings
from blip2cli.settings import Kind, ModelSettings
from blip2cli.tiny import MODEL_DIR, RETRIEVAL_DIR

TINY: dict[Kind, Path] = {"generation": MODEL_DIR, "retrieval": RETRIEVAL_DIR}


def local_folder(settings: ModelSettings, kind: Kind) -> Path:
    """The folder of the checkpoint that the settings name. Raises CheckpointError if it
    is not on this machine."""
    name = settings.name(kind)
    if name == "tiny":
        return TINY[kind]
    return Path(name) if os.path.isdir(name) else hub_folder(name, settings.revision, fetch=False)


def early_image_settings(settings: ModelSettings, kind: Kind) -> ImageSettings | None:
    """What the checkpoint's image processor does; None if that cannot be known yet.

    Raises CheckpointError, and OSError for a file that cannot be read.
    """
    folder = local_folder(settings, kind)
    vision = json_object(folder / "config.json").get("vision_config")
    side = vision.get("image_size") if isinstance(vision, dict) else None
    return image_settings(folder, side) if isinstance(side, int) else None
