"""How images are read for a checkpoint. torch is not needed."""

from __future__ import annotations

from blip2cli.images.decode import Reading
from blip2cli.model.checkpoint.processor import ImageSettings
from blip2cli.settings import ModelSettings


def reading_for(images: ImageSettings, settings: ModelSettings) -> Reading:
    """How images are read for a checkpoint whose image processor has these settings."""
    return Reading(images.side, settings.exact_pixels, images.fitting)
