"""RetrievalModel compares images with texts, by the heads of the paper's first stage
(section 3.2).

ITC (image-text contrastive) compares features of an image with features of a text, which
are computed separately: it is cheap, and search is based on it. ITM (image-text matching)
lets the Q-Former read the text together with the image: it is more exact, and takes a
pass through the Q-Former for every pair.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from blip2cli.model.batches import Failed
from blip2cli.model.checkpoint.record import Checkpoint
from blip2cli.model.checkpoint.tokenizer import LONGEST_TOKEN, TokenizerFailed, token_ids
from blip2cli.model.explain import Explanation, maps_of, recorded_attention, words_of
from blip2cli.model.graphs import PendingRow, Tensors
from blip2cli.model.loaded import LoadedCheckpoint
from blip2cli.model.recent import PendingEncodings
from blip2cli.records import Batch, RowError

KEPT_IMAGES = 64
"""Images that are kept encoded.

They are much larger than a Blip2Model's, as they have embeddings of all patches.
"""

KEPT_TEXTS = 1 << 16
"""Texts whose token ids are kept, and those whose projections are."""

SIMILARITIES = 1 << 22
"""Products of query tokens and texts that are in memory at once."""


@dataclass(frozen=True, slots=True, eq=False)
class SeenImage:
    """An encoded image.

    Args:
        image_embeds: for ITM, [patches + 1, vision width].
        projected: for ITC, fp32 [num_query_tokens, projection width], normalised.
    """

    image_embeds: torch.Tensor
    projected: torch.Tensor

    def clone(self) -> SeenImage:
        """A copy in memory of its own."""
        return SeenImage(self.image_embeds.clone(), self.projected.clone())


@dataclass(frozen=True, slots=True)
class ReadText:
    """A text's token ids."""

    ids: tuple[int, ...]


Pair = tuple[SeenImage, ReadText]
"""An image and a text to compare."""


def check_finite(name: str, score: float | Failed) -> float | Failed:
    """The score, or Failed if it is not finite."""
    if isinstance(score, Failed) or math.isfinite(score):
        return score
    return Failed(RowError("failed", f"the {name} score is not finite"))


def _finite_logits(logits: tuple[float, float]) -> tuple[float, float] | Failed:
    """The logits of a pair, or Failed if their difference is not finite."""
    difference = check_finite("ITM", logits[1] - logits[0])
    return difference if isinstance(difference, Failed) else logits


def _forget_oldest(kept: dict[Any, Any], in_use: int) -> None:
    """Remove the oldest entries above KEPT_TEXTS, or above those in use if there are more."""
    while len(kept) > max(KEPT_TEXTS, in_use):
        del kept[next(iter(kept))]


class RetrievalModel(LoadedCheckpoint):
    """A loaded checkpoint with retrieval heads. Matches `Blip2ForImageTextRetrieval` on
    one pair at a time.

    Batches of texts, and of pairs, are as large as those of images.
    """

    def __init__(self, checkpoint: Checkpoint, batch_size: int | None = None) -> None:
        super().__init__(checkpoint, batch_size, KEPT_IMAGES)
        self._texts: dict[str, ReadText] = {}
        self._projections: dict[ReadText, torch.Tensor] = {}

    @property
    def text_room(self) -> int:
        """The most tokens of a text: as many as the Q-Former has positions."""
        return int(self.model.config.qformer_config.max_position_embeddings)

    def share_vision(self, other: LoadedCheckpoint) -> None:
        """Use the layers of another model's vision model, which hold the same weights,
        and free those of this one. The norm after them remains."""
        ours, theirs = self.model.vision_model, other.model.vision_model
        ours.embeddings, ours.encoder = theirs.embeddings, theirs.encoder
        if self.checkpoint.device.type == "cuda":
            torch.cuda.empty_cache()

    def see(self, batch: Batch) -> list[SeenImage | Failed]:
        """The batch's images, each encoded once however many texts it is compared with."""
        return self.recent.encoded("seen", self._see, batch)

    def read(self, texts: Sequence[str]) -> list[ReadText | Failed]:
        """The texts as token ids. A text with too many tokens is Failed."""
        read = [self._texts.get(text) or self._read(text) for text in texts]
        _forget_oldest(self._texts, len(texts))
        return read

    def projections(self, texts: Sequence[ReadText]) -> list[torch.Tensor | Failed]:
        """Features of each text for ITC, fp32 [projection width], normalised, as if it were alone."""
        new = [text for text in dict.fromkeys(texts) if text not in self._projections]
        failed: dict[ReadText, Failed] = {}
        with self.computing():
            computed = self.batches.compute(self._project_texts, [text.ids for text in new]) if new else []
        for text, projected in zip(new, computed, strict=True):
            if isinstance(projected, Failed):
                failed[text] = projected
            else:
                self._projections[text] = projected.clone()
        projections = [failed.get(text) or self._projections[text] for text in texts]
        _forget_oldest(self._projections, len(texts))
        return projections

    def image_projections(self, batch: Batch) -> list[torch.Tensor | Failed]:
        """Features of each image for ITC, fp32 [num_query_tokens, projection width] on
        the CPU, normalised.

        Equal to `image_embeds` of transformers' `Blip2ForImageTextRetrieval`.
        """
        return self.begin_image_projections(batch).wait()

    def begin_image_projections(self, batch: Batch) -> PendingEncodings:
        """The same, without waiting for the device."""

        def encode(pixels: torch.Tensor) -> Iterable[torch.Tensor | PendingRow]:
            return self.to_host(self._embeds_and_projections(pixels)[1])

        return self.recent.begin("projected", encode, batch)

    def text_projections(self, texts: Sequence[str]) -> list[torch.Tensor | Failed]:
        """Features of each text for ITC, fp32 [projection width] on the CPU, normalised:
        `text_embeds`."""
        read = self.read(texts)
        computed = iter(self.projections([text for text in read if not isinstance(text, Failed)]))
        projections = [text if isinstance(text, Failed) else next(computed) for text in read]
        return [each if isinstance(each, Failed) else each.cpu() for each in projections]

    @torch.inference_mode()
    def similarities(self, images: Sequence[torch.Tensor], texts: torch.Tensor) -> torch.Tensor:
        """ITC scores fp32 [images, texts] on the CPU: the largest dot product of any of an
        image's query tokens.

        Args:
            images: features of each, fp32 [num_query_tokens, projection width], normalised.
            texts: fp32 [texts, projection width], normalised.
        """
        if not images or not len(texts):
            return torch.zeros(len(images), len(texts))
        size = max(1, SIMILARITIES // (self.num_query_tokens * len(texts)))
        scores = []
        for at in range(0, len(images), size):
            block = torch.stack([*images[at : at + size]]).to(texts.device)
            scores.append((block @ texts.T).amax(dim=1).cpu())
        return torch.cat(scores)

    def itc_of_pairs(self, pairs: Sequence[Pair]) -> list[float | Failed]:
        """The ITC score of each pair, taken from the product of all images with all
        texts. Failed if it is not finite."""
        if not pairs:
            return []
        images = list({id(image): image for image, _ in pairs}.values())
        texts = list(dict.fromkeys(text for _, text in pairs))
        projections = self.projections(texts)
        failed = {text: each for text, each in zip(texts, projections, strict=True) if isinstance(each, Failed)}
        good = [text for text in texts if text not in failed]
        if not good:
            return [failed[text] for _, text in pairs]
        vectors = torch.stack([each for each in projections if not isinstance(each, Failed)])
        scores: list[list[float]] = self.similarities([image.projected for image in images], vectors).tolist()
        row = {id(image): at for at, image in enumerate(images)}
        column = {text: at for at, text in enumerate(good)}
        return [failed.get(text) or check_finite("ITC", scores[row[id(image)]][column[text]]) for image, text in pairs]

    def itm(self, pairs: Sequence[Pair]) -> list[float | Failed]:
        """The probability that each image and text match: one softmax over the head's two
        logits.

        Failed if it is not finite.
        """
        if not pairs:
            return []
        with self.computing():
            scores = self.batches.compute(self._match, pairs)
        return [check_finite("ITM", score) for score in scores]

    def itm_logits(self, pairs: Sequence[Pair]) -> list[tuple[float, float] | Failed]:
        """The head's two logits for each image and text: that they do not match, and that
        they do.

        Their difference is the log-odds of a match. Failed if it is not finite.
        """
        if not pairs:
            return []
        with self.computing():
            logits = self.batches.compute(lambda some: map(tuple, self._itm_logits(some).tolist()), pairs)
        return [each if isinstance(each, Failed) else _finite_logits(each) for each in logits]

    def explain(self, image: SeenImage, text: ReadText, words: bool = False) -> Explanation | Failed:
        """Where the model looked to see how well a text fits an image: what raised the
        logit of ITM that says they match.

        A word's map is that of the text whose other words are hidden, as padding is.
        """

        def compute(pairs: list[Pair]) -> list[Explanation]:
            with self.differentiating():
                return [self._explain(*pair, words) for pair in pairs]

        explained: Explanation | Failed = self.batches.compute(compute, [(image, text)])[0]
        return explained

    def _see(self, pixels: torch.Tensor) -> Iterator[SeenImage]:
        return map(SeenImage, *self._embeds_and_projections(pixels))

    def _embeds_and_projections(self, pixels: torch.Tensor) -> Tensors:
        def forward(pixels: torch.Tensor) -> Tensors:
            return self.features_of(self.encoder.vision(pixels)[0])

        return self.run_on_images("seen", forward, pixels)

    def features_of(self, image_embeds: torch.Tensor) -> Tensors:
        """Image embeddings, and what ITC compares: the tensors of SeenImages."""
        hidden = self.encoder.query_output(image_embeds)
        return image_embeds, self._projected(self.model.vision_projection, hidden)

    def _project_texts(self, texts: Sequence[tuple[int, ...]]) -> torch.Tensor:
        input_ids, mask = self._padded(texts)
        outputs = self.model.qformer(
            query_embeds=self.model.embeddings(input_ids=input_ids), query_length=0, attention_mask=mask
        )
        return self._projected(self.model.text_projection, outputs.last_hidden_state[:, 0])

    def _match(self, pairs: Sequence[Pair]) -> list[float]:
        matching: list[float] = self._itm_logits(pairs).softmax(dim=-1)[:, 1].tolist()
        return matching

    def _itm_logits(self, pairs: Sequence[Pair]) -> torch.Tensor:
        """The head's logits fp32 [pairs, 2]."""
        image_embeds = torch.stack([image.image_embeds for image, _ in pairs])
        input_ids, mask = self._padded([text.ids for _, text in pairs])
        return self._itm_head(image_embeds, input_ids, mask, self.model.query_tokens)

    def _itm_head(
        self, image_embeds: torch.Tensor, input_ids: torch.Tensor, mask: torch.Tensor, query_tokens: torch.Tensor
    ) -> torch.Tensor:
        """The head's logits fp32 [pairs, 2]; `query_tokens` are the model's own, or a copy."""
        queries = query_tokens.expand(len(image_embeds), -1, -1)
        outputs = self.model.qformer(
            query_embeds=self.model.embeddings(input_ids=input_ids, query_embeds=queries),
            query_length=queries.shape[1],
            attention_mask=torch.cat([mask.new_ones(queries.shape[:2]), mask], dim=1),
            encoder_hidden_states=image_embeds,
            encoder_attention_mask=mask.new_ones(image_embeds.shape[:2]),
        )
        hidden = outputs.last_hidden_state[:, : queries.shape[1]].to(self.checkpoint.dtype)
        logits: torch.Tensor = self.model.itm_head(hidden).float().mean(dim=1)
        return logits

    def _explain(self, image: SeenImage, text: ReadText, words: bool) -> Explanation:
        found = words_of(text.ids, self.text) if words else []
        in_words = {at for word in found for at in word.tokens}
        seen = [[1] * len(text.ids)]
        for word in found:
            seen.append([int(at in word.tokens or at not in in_words) for at in range(len(text.ids))])
        mask = torch.tensor(seen, device=self.encoder.device)
        input_ids = torch.tensor([text.ids], device=mask.device).expand(mask.shape)
        image_embeds = image.image_embeds.clone().expand(len(mask), -1, -1)
        queries = self.model.query_tokens.clone().requires_grad_()
        with recorded_attention(self.model.qformer) as attentions:
            logits = self._itm_head(image_embeds, input_ids, mask, queries)
        return Explanation.of(maps_of(logits[:, 1].sum(), attentions), [word.text for word in found])

    def _projected(self, projection: Any, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states through a projection, normalised in fp32."""
        return F.normalize(projection(hidden.to(self.checkpoint.dtype)).float(), dim=-1)

    def _read(self, text: str) -> ReadText | Failed:
        """The text as token ids, which are kept."""
        ids = self._ids(text)
        if isinstance(ids, Failed):
            return ids
        read = self._texts[text] = ReadText(ids)
        return read

    def _ids(self, text: str) -> tuple[int, ...] | Failed:
        """Token ids of a text; special tokens in it are text."""
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
        """Token ids and mask [texts, longest], padded on the right: the first token's
        features are the text's."""
        longest, device = max(map(len, texts)), self.encoder.device
        padding = self.tokenizer.pad_token_id or 0
        input_ids = [[*ids, *[padding] * (longest - len(ids))] for ids in texts]
        mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in texts]
        return torch.tensor(input_ids, device=device), torch.tensor(mask, device=device)
