"""Pixels to query embeddings: vision model → Q-Former → language projection, once an
image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from blip2cli.model.checkpoint.processor import ImageSettings

if TYPE_CHECKING:
    from transformers import Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval


class Encoder:
    """The image side of a loaded model of either kind.

    Matches `Blip2ForConditionalGeneration.get_image_features`.
    """

    def __init__(
        self, model: Blip2ForConditionalGeneration | Blip2ForImageTextRetrieval, images: ImageSettings
    ) -> None:
        self.model = model
        self.device = model.query_tokens.device
        self.mean = torch.tensor(images.mean, device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(images.std, device=self.device).view(1, 3, 1, 1)
        self.table = _pixel_table(images).to(self.device)
        self.white = 1 / images.rescale if images.rescale else 1.0
        all_values = torch.arange(256, dtype=torch.uint8, device=self.device).view(1, 256, 1, 1)
        computed = self._compute(all_values.expand(1, 256, 1, 3))
        self.can_compute = torch.equal(computed[0, :, :, 0], self.table)

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 [n, side, side, 3] to fp32 [n, 3, side, side], with the operations of
        transformers' image processor."""
        on_device = pixels.to(self.device, non_blocking=True)
        if self.can_compute:
            return self._compute(on_device)
        channels = on_device.permute(3, 0, 1, 2).int()
        looked_up = [values[channel] for values, channel in zip(self.table, channels, strict=True)]
        return torch.stack(looked_up, dim=1)

    def _compute(self, pixels: torch.Tensor) -> torch.Tensor:
        """`normalize` by arithmetic, which for BLIP-2's own settings gives exactly
        transformers' numbers."""
        values = pixels.permute(0, 3, 1, 2)
        return (values.to(torch.float32) / self.white - self.mean) / self.std

    def vision(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 pixels to image embeddings [n, patches + 1, vision width] and the pooled
        ones [n, vision width]."""
        weights = self.model.vision_model.embeddings.patch_embedding.weight
        outputs = self.model.vision_model(pixel_values=self.normalize(pixels).to(weights.dtype))
        return outputs.last_hidden_state, outputs.pooler_output

    def patch_states(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 pixels to the states of the vision model's last layer, before its last
        norm: [n, patches + 1, vision width]."""
        vision_model = self.model.vision_model
        weights = vision_model.embeddings.patch_embedding.weight
        embedded = vision_model.embeddings(self.normalize(pixels).to(weights.dtype))
        states: torch.Tensor = vision_model.encoder(inputs_embeds=embedded).last_hidden_state
        return states

    def image_embeds(self, patch_states: torch.Tensor) -> torch.Tensor:
        """These states to image embeddings, as `vision` gives them."""
        embeds: torch.Tensor = self.model.vision_model.post_layernorm(patch_states)
        return embeds

    def query_output(self, image_embeds: torch.Tensor, query_tokens: torch.Tensor | None = None) -> torch.Tensor:
        """Image embeddings to the Q-Former's last hidden states [n, num_query_tokens,
        Q-Former width].

        `query_tokens` are the model's own, or a copy of them.
        """
        queries = self.model.query_tokens if query_tokens is None else query_tokens
        outputs = self.model.qformer(
            query_embeds=queries.expand(len(image_embeds), -1, -1),
            encoder_hidden_states=image_embeds,
        )
        hidden: torch.Tensor = outputs.last_hidden_state
        return hidden

    def query_embeds(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 pixels to the embeddings that the language model sees [n,
        num_query_tokens, language width]."""
        return self.query_embeds_of(self.vision(pixels)[0])

    def query_embeds_of(self, image_embeds: torch.Tensor, query_tokens: torch.Tensor | None = None) -> torch.Tensor:
        """Image embeddings to the embeddings that the language model sees; `query_tokens`
        as in `query_output`."""
        query_output = self.query_output(image_embeds, query_tokens).to(image_embeds.dtype)
        projected: torch.Tensor = self.model.language_projection(query_output)
        width = self.model.get_input_embeddings().weight.shape[1]
        return projected if projected.shape[-1] == width else _scattered(projected, width)


def _scattered(projected: torch.Tensor, width: int) -> torch.Tensor:
    """Image embeddings [n, num_query_tokens, wider] as transformers inserts them among
    tokens of a smaller width.

    OPT-350M's tokens are narrower than its layers, and the projection is made for the
    layers. `masked_scatter` fills the tokens with the projection's values one after
    another, and does not use those that are left over.
    """
    images, queries, _ = projected.shape
    return projected.flatten(1)[:, : queries * width].reshape(images, queries, width)


def _pixel_table(images: ImageSettings) -> torch.Tensor:
    """The normalised value of each pixel value, fp32 [3, 256], with the operations of
    transformers' image processor.

    Its `rescale` multiplies in double precision; its `normalize` computes in single
    precision.
    """
    values = np.arange(256, dtype=np.float64)
    if images.rescale is not None:
        values = values * images.rescale
    channels = np.tile(values.astype(np.float32), (3, 1))
    if images.normalize:
        mean, std = (np.array(part, dtype=np.float32)[:, None] for part in (images.mean, images.std))
        channels = (channels - mean) / std
    return torch.from_numpy(channels)
