"""Beam search, by transformers' own `generate` on the language model, several requests at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from blip2cli.model.batches import Batches, Failed
from blip2cli.model.decoding.requests import Completion, Request
from blip2cli.settings import GenerationSettings


@dataclass
class BeamSearch:
    """Beam search over a language model; `returned` is how many of the best beams each request gets.

    `image_token` stands for the image where a repetition penalty counts tokens.
    """

    language_model: Any
    settings: GenerationSettings
    end_ids: tuple[int, ...]
    batches: Batches
    returned: int = 1
    image_token: int = 0

    def decode(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Completions in the order of the requests, `returned` for each, best first."""
        stream = iter(requests)
        while batch := list(islice(stream, self.batch_size)):
            for request, found in zip(batch, self.batches.compute(self._search, batch), strict=True):
                if isinstance(found, Failed):
                    yield from [Completion(request.key, (), found.error)] * self.returned
                else:
                    yield from (Completion(request.key, text, None, *score) for text, score in found)

    @property
    def batch_size(self) -> int:
        """The encoding batch that goes with the requests searched together."""
        return self.batches.largest

    def _search(self, batch: Sequence[Request]) -> list[list[tuple[tuple[int, ...], tuple[float, int]]]]:
        """The token ids and the score of each request's best beams."""
        least, most = batch[0].lengths
        config = self.language_model.config
        embeds, mask, ids = self._inputs(batch, left=not config.is_encoder_decoder)
        inputs = {"inputs_embeds": embeds, "attention_mask": mask}
        if not config.is_encoder_decoder:
            inputs["input_ids"] = ids  # what a repetition penalty counts; comes back before the new tokens
        found = self.language_model.generate(
            **inputs,
            return_dict_in_generate=True,
            output_logits=self.settings.scores,
            do_sample=False,
            num_beams=self.settings.num_beams,
            num_return_sequences=self.returned,
            max_new_tokens=most,
            min_new_tokens=least or None,
            length_penalty=self.settings.length_penalty,
            repetition_penalty=self.settings.repetition_penalty,
            eos_token_id=list(self.end_ids) or None,
        )
        skipped = 1 if config.is_encoder_decoder else ids.shape[1]
        texts = [self._until_end(row) for row in found.sequences[:, skipped:].tolist()]
        sequences = list(zip(texts, self._scores(found), strict=True))
        return [sequences[at : at + self.returned] for at in range(0, len(sequences), self.returned)]

    def _scores(self, found: Any) -> list[tuple[float, int]]:
        """The logarithm of each text's probability, and the tokens in it; zeros where no scores are asked for."""
        if not self.settings.scores:
            return [(0.0, 0)] * len(found.sequences)
        steps = self.language_model.compute_transition_scores(
            found.sequences, [logits.float() for logits in found.logits], found.beam_indices, normalize_logits=True
        )
        written = (found.beam_indices >= 0).sum(dim=-1)
        return list(zip(steps.sum(dim=-1).tolist(), written.tolist(), strict=True))

    def _inputs(self, batch: Sequence[Request], left: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Embeddings [n, length, width], their mask, and token ids with a stand-in at the images' places."""
        embedding = self.language_model.get_input_embeddings()
        device = embedding.weight.device
        width = batch[0].image.query_embeds.shape[0]
        longest = width + max(len(request.prompt_ids) for request in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long, device=device)
        mask = torch.zeros_like(ids)
        embeds = embedding.weight.new_zeros(len(batch), longest, embedding.weight.shape[1])
        for at, request in enumerate(batch):
            prompt = torch.tensor(request.prompt_ids, dtype=torch.long, device=device)
            start = longest - width - len(prompt) if left else 0
            text = slice(start + width, start + width + len(prompt))
            ids[at] = self.image_token
            ids[at, text] = prompt
            mask[at, start : text.stop] = 1
            embeds[at, start : start + width] = request.image.query_embeds
            embeds[at, text] = embedding(prompt)
        return embeds, mask, ids

    def _until_end(self, ids: list[int]) -> tuple[int, ...]:
        ends = [at for at, token in enumerate(ids) if token in self.end_ids]
        return tuple(ids[: ends[0]] if ends else ids)
