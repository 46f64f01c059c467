"""Pixels to query embeddings: vision model → Q-Former → language projection, once an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from blip2cli.model.checkpoint import ImageSettings

if TYPE_CHECKING:
    from transformers import Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval


class Encoder:
    """The image side of a loaded model of either kind. Matches `Blip2ForConditionalGeneration.get_image_features`."""

    def __init__(
        self, model: Blip2ForConditionalGeneration | Blip2ForImageTextRetrieval, images: ImageSettings
    ) -> None:
        self.model = model
        self.device = model.query_tokens.device
        self.white = 1 / images.rescale  # dividing by 255 rounds as transformers' product in double precision does
        self.mean = torch.tensor(images.mean, device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(images.std, device=self.device).view(1, 3, 1, 1)

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 [n, side, side, 3] to fp32 [n, 3, side, side], with the operations of transformers' image processor."""
        values = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        return (values.to(torch.float32) / self.white - self.mean) / self.std

    def vision(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 pixels to image embeddings [n, patches + 1, vision width] and the pooled ones [n, vision width]."""
        weights = self.model.vision_model.embeddings.patch_embedding.weight
        outputs = self.model.vision_model(pixel_values=self.normalize(pixels).to(weights.dtype))
        return outputs.last_hidden_state, outputs.pooler_output

    def query_output(self, image_embeds: torch.Tensor) -> torch.Tensor:
        """Image embeddings to the Q-Former's last hidden states [n, num_query_tokens, Q-Former width]."""
        outputs = self.model.qformer(
            query_embeds=self.model.query_tokens.expand(len(image_embeds), -1, -1),
            encoder_hidden_states=image_embeds,
        )
        hidden: torch.Tensor = outputs.last_hidden_state
        return hidden

    def query_embeds(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 pixels to the embeddings that the language model sees [n, num_query_tokens, language width]."""
        image_embeds, _ = self.vision(pixels)
        query_output = self.query_output(image_embeds).to(image_embeds.dtype)
        projected: torch.Tensor = self.model.language_projection(query_output)
        return projected
