"""RetrievalModel: images and texts compared, by the heads of the paper's first stage (section 3.2).

ITC (image-text contrastive) compares features of an image with those of a text, each computed by itself: cheap, and
what search is made of. ITM (image-text matching) lets the Q-Former read the text while it looks at the image: exact,
and as costly as another pass through the Q-Former for every pair.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from blip2cli.model.batches import Failed
from blip2cli.model.checkpoint.load import Checkpoint
from blip2cli.model.checkpoint.tokenizer import TokenizerFailed, token_ids
from blip2cli.model.decoding.requests import LONGEST_TOKEN
from blip2cli.model.graphs import Tensors
from blip2cli.model.loaded import LoadedCheckpoint
from blip2cli.records import Batch, RowError

RECENT = 64
"""Images that are kept encoded. Their embeddings are many times those of a Blip2Model: those of every patch."""

TEXTS = 1 << 16
"""Texts that are kept read."""

SIMILARITIES = 1 << 22
"""Products of query tokens and texts that are held at once."""


@dataclass(frozen=True, slots=True, eq=False)
class SeenImage:
    """An image as the heads see it.

    `image_embeds` [patches + 1, vision width] is what ITM looks at, `projected` fp32 [num_query_tokens, projection
    width], normalised, what ITC compares.
    """

    image_embeds: torch.Tensor
    projected: torch.Tensor

    def clone(self) -> SeenImage:
        """The same, in memory of its own."""
        return SeenImage(self.image_embeds.clone(), self.projected.clone())


@dataclass(frozen=True, slots=True, eq=False)
class ReadText:
    """A text as the heads read it: its token ids, and for ITC `projected` fp32 [projection width], normalised."""

    ids: tuple[int, ...]
    projected: torch.Tensor


def finite(name: str, score: float | Failed) -> float | Failed:
    """The score, or Failed where it is not finite."""
    broken = not isinstance(score, Failed) and not math.isfinite(score)
    return Failed(RowError("failed", f"the {name} score is not finite")) if broken else score


class RetrievalModel(LoadedCheckpoint):
    """A loaded checkpoint with retrieval heads. Matches `Blip2ForImageTextRetrieval` on one pair at a time.

    As many texts are read, and pairs matched, together as images are encoded.
    """

    def __init__(self, checkpoint: Checkpoint, batch_size: int | None = None) -> None:
        super().__init__(checkpoint, batch_size, RECENT)
        self._texts: dict[str, ReadText] = {}

    @property
    def text_room(self) -> int:
        """The most tokens of a text: the Q-Former has no more positions."""
        return int(self.model.config.qformer_config.max_position_embeddings)

    def see(self, batch: Batch) -> list[SeenImage | Failed]:
        """The batch's images, each encoded once however many texts it is compared with."""
        return self.recent.encoded("seen", self._see, batch)

    def read(self, texts: Sequence[str]) -> list[ReadText | Failed]:
        """The texts, each as if it were alone. One with more tokens than there is room for is Failed."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        given: dict[str, Any] = {text: self._ids(text) for text in new}
        fits = {text: ids for text, ids in given.items() if not isinstance(ids, Failed)}
        with self.computing():
            projections = self.batches.compute(self._project_texts, list(fits.values())) if fits else []
        for (text, ids), projected in zip(fits.items(), projections, strict=True):
            if isinstance(projected, Failed):
                given[text] = projected
            else:
                del given[text]
                self._texts[text] = ReadText(ids, projected.clone())
        read = [given.get(text) or self._texts[text] for text in texts]
        while len(self._texts) > max(TEXTS, len(texts)):
            del self._texts[next(iter(self._texts))]
        return read

    def image_projections(self, batch: Batch) -> list[torch.Tensor | Failed]:
        """What ITC compares of each image, fp32 [num_query_tokens, projection width] on the CPU, normalised.

        Equal to `image_embeds` of transformers' `Blip2ForImageTextRetrieval`.
        """
        return self.recent.encoded(
            "projected", lambda pixels: [image.projected.cpu() for image in self._see(pixels)], batch
        )

    def text_projections(self, texts: Sequence[str]) -> list[torch.Tensor | Failed]:
        """What ITC compares of each text, fp32 [projection width] on the CPU, normalised: `text_embeds`."""
        return [read if isinstance(read, Failed) else read.projected.cpu() for read in self.read(texts)]

    @torch.inference_mode()
    def itc(self, images: Sequence[SeenImage], texts: Sequence[ReadText]) -> torch.Tensor:
        """ITC scores fp32 [images, texts] on the CPU: the best of an image's query tokens, by the dot product."""
        if not images or not texts:
            return torch.zeros(len(images), len(texts))
        readings = torch.stack([text.projected for text in texts])
        size = max(1, SIMILARITIES // (self.num_query_tokens * len(texts)))
        blocks = [
            torch.stack([image.projected for image in images[at : at + size]]) for at in range(0, len(images), size)
        ]
        return torch.cat([(block @ readings.T).amax(dim=1).cpu() for block in blocks])

    def itm(self, pairs: Sequence[tuple[SeenImage, ReadText]]) -> list[float | Failed]:
        """The probability of each image and text that they match: one softmax over the head's two logits.

        Failed where it is not finite.
        """
        with self.computing():
            return [finite("ITM", score) for score in self.batches.compute(self._match, pairs)] if pairs else []

    def _see(self, pixels: torch.Tensor) -> Iterator[SeenImage]:
        def forward(pixels: torch.Tensor) -> Tensors:
            image_embeds, _ = self.encoder.vision(pixels)
            hidden = self.encoder.query_output(image_embeds)
            return image_embeds, self._projected(self.model.vision_projection, hidden)

        return map(SeenImage, *self.run_on_images("seen", forward, pixels))

    def _project_texts(self, texts: Sequence[tuple[int, ...]]) -> torch.Tensor:
        input_ids, mask = self._padded(texts)
        outputs = self.model.qformer(
            query_embeds=self.model.embeddings(input_ids=input_ids), query_length=0, attention_mask=mask
        )
        return self._projected(self.model.text_projection, outputs.last_hidden_state[:, 0])

    def _match(self, pairs: Sequence[tuple[SeenImage, ReadText]]) -> list[float]:
        image_embeds = torch.stack([image.image_embeds for image, _ in pairs])
        input_ids, mask = self._padded([text.ids for _, text in pairs])
        queries = self.model.query_tokens.expand(len(pairs), -1, -1)
        outputs = self.model.qformer(
            query_embeds=self.model.embeddings(input_ids=input_ids, query_embeds=queries),
            query_length=queries.shape[1],
            attention_mask=torch.cat([mask.new_ones(queries.shape[:2]), mask], dim=1),
            encoder_hidden_states=image_embeds,
            encoder_attention_mask=mask.new_ones(image_embeds.shape[:2]),
        )
        hidden = outputs.last_hidden_state[:, : queries.shape[1]].to(self.checkpoint.dtype)
        logits = self.model.itm_head(hidden).float().mean(dim=1)
        matching: list[float] = logits.softmax(dim=-1)[:, 1].tolist()
        return matching

    def _projected(self, projection: Any, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states through a projection, normalised in fp32."""
        return F.normalize(projection(hidden.to(self.checkpoint.dtype)).float(), dim=-1)

    def _ids(self, text: str) -> tuple[int, ...] | Failed:
        """Token ids of a text as the tokenizer gives them; special tokens in it are text."""
        if len(text) > self.text_room * LONGEST_TOKEN:
            return Failed(RowError("text-too-long", f"{len(text)} characters, {self.text_room} tokens fit"))
        try:
            ids = token_ids(self.tokenizer, text.encode("utf-8", "backslashreplace").decode())
        except TokenizerFailed as failed:
            return Failed(RowError("failed", str(failed)))
        if len(ids) > self.text_room:
            return Failed(RowError("text-too-long", f"{len(ids)} tokens, {self.text_room} fit"))
        return ids

    def _padded(self, texts: Sequence[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask [texts, longest]; on the right, as the first token is what stands for the whole text."""
        longest, device = max(map(len, texts)), self.encoder.device
        padding = self.tokenizer.pad_token_id or 0
        input_ids = [[*ids, *[padding] * (longest - len(ids))] for ids in texts]
        mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in texts]
        return torch.tensor(input_ids, device=device), torch.tensor(mask, device=device)
