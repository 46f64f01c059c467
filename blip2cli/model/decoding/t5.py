"""T5, one step at a time, with SlotCaches.

Matches transformers' `T5ForConditionalGeneration` in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from blip2cli.model.checkpoint.placement import device_of
from blip2cli.model.decoding.cache import SlotCache, attend
from blip2cli.model.decoding.language_model import LanguageModel
from blip2cli.model.decoding.requests import Request
from blip2cli.model.graphs import Runner, to_device


class T5Decoder(LanguageModel):
    """The language model of a Flan-T5 checkpoint.

    The encoder reads [query embeddings][prompt] when a sequence is admitted; its keys and
    values for the decoder's cross-attention are kept in the sequence's slot of a second
    cache. The bias of self-attention depends only on distances.
    """

    def __init__(self, language_model: Any, runner: Runner, image_token: int | None = None) -> None:
        self.model = language_model
        self.config = language_model.config
        self.blocks = language_model.decoder.block
        self.scaled = getattr(self.config, "scale_decoder_outputs", self.config.tie_word_embeddings)
        devices = [device_of(block) for block in self.blocks]
        like, config = self.model.shared.weight, self.config
        super().__init__(devices, config.num_heads, config.d_kv, like, 2, config.vocab_size, runner)
        self.bias = self.like.new_empty(self.heads, 0)

    @property
    def cross(self) -> SlotCache:
        """Keys and values of the encoder's output for image and prompt."""
        return self.caches[1]

    @staticmethod
    def forced_logits(
        language_model: Any, query_embeds: torch.Tensor, prompt_ids: Sequence[int], text_ids: Sequence[int]
    ) -> torch.Tensor:
        prompt = torch.tensor([prompt_ids], dtype=torch.long, device=query_embeds.device)
        tokens = language_model.get_input_embeddings()(prompt)
        embeds = torch.cat([query_embeds.to(tokens.dtype), tokens], dim=1)
        written = [[language_model.config.decoder_start_token_id, *text_ids[:-1]]]
        decoder_input_ids = torch.tensor(written, device=query_embeds.device)
        outputs = language_model(inputs_embeds=embeds, decoder_input_ids=decoder_input_ids, use_cache=False)
        logits: torch.Tensor = outputs.logits
        return logits[0]

    def start(self, request: Request) -> tuple[int, int]:
        return self.config.decoder_start_token_id, 0

    def seen(self, request: Request) -> tuple[int, ...]:
        return (self.config.decoder_start_token_id,)

    def room(self, requests: Sequence[Request]) -> tuple[int, ...]:
        image = len(requests[0].image.query_embeds)
        prompt = self._padded_length(max(len(request.prompt_ids) for request in requests))
        return max(request.lengths[1] for request in requests) + 2, image + prompt

    def admit(self, requests: Sequence[Request], slots: Sequence[int]) -> None:
        for cache in self.caches:
            cache.clear(to_device(list(slots), self.device))
        for chunk in self._chunks(list(zip(requests, slots, strict=True))):
            images = torch.stack([request.image.query_embeds for request, _ in chunk])
            prompts = [request.prompt_ids for request, _ in chunk]
            ids = torch.tensor(self._padded(prompts), dtype=torch.long).view(len(chunk), -1)
            lengths = to_device([images.shape[1] + len(prompt) for prompt in prompts], self.device)
            rows = to_device([slot for _, slot in chunk], self.device)
            self.cross.reserve(images.shape[1] + ids.shape[1])
            self.cross.lengths[rows] = lengths
            self.cache.lengths[rows] = 0
            self.runner.run("read", self._read, images, to_device(ids, self.device), lengths, rows)

    def _read(
        self, images: torch.Tensor, ids: torch.Tensor, lengths: torch.Tensor, slots: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Run the encoder over [image][prompt], and store the keys and values of its
        output in slots."""
        prompts = self.model.shared(ids)
        embeds = torch.cat([images.to(prompts.dtype), prompts], dim=1)
        unread = torch.arange(embeds.shape[1], device=embeds.device) >= lengths[:, None]
        mask = _hide(unread, embeds.dtype)  # complete, so that nothing checks on the host whether it hides anything
        hidden = self.model.encoder(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
        columns = slice(0, embeds.shape[1])
        states, rows = self.cross.everywhere(hidden), self.cross.places(slots)
        for at, block in enumerate(self.blocks):
            attention = block.layer[1].EncDecAttention
            keys, values = self._split(attention.k(states[at])), self._split(attention.v(states[at]))
            self.cross.fill(at, rows[at], columns, keys, values)
        return ()

    def step_in(self, slots: slice, tokens: torch.Tensor) -> torch.Tensor:
        """A step attends to all columns, with a mask."""
        lengths = self.cache.lengths[slots]
        unread = torch.arange(self.cross.columns, device=lengths.device) >= self.cross.lengths[slots, None]
        bias = self._self_bias(lengths)
        biases, cross_biases = self.cache.everywhere(bias), self.cache.everywhere(_hide(unread, bias.dtype))
        rows, ends = self.cache.everywhere(self.rows[slots]), self.cache.everywhere(lengths)
        hidden = self.model.shared(tokens[:, None])
        for at, block in enumerate(self.blocks):
            hidden = hidden.to(self.devices[at])
            hidden = hidden + self._self_attention(at, block.layer[0], hidden, slots, rows[at], ends[at], biases[at])
            hidden = hidden + self._cross_attention(at, block.layer[1], hidden, slots, cross_biases[at])
            hidden = block.layer[-1](hidden)
        hidden = self.model.decoder.final_layer_norm(hidden[:, 0])
        if self.scaled:
            hidden = hidden * self.config.d_model**-0.5
        logits: torch.Tensor = self.model.lm_head(hidden)
        self.cache.lengths[slots] = (lengths + 1).clamp(max=self.cache.columns - 1)
        return logits

    def _self_attention(
        self,
        at: int,
        layer: Any,
        hidden: torch.Tensor,
        slots: slice,
        rows: torch.Tensor,
        ends: torch.Tensor,
        bias: torch.Tensor,
    ) -> torch.Tensor:
        attention = layer.SelfAttention
        normed = layer.layer_norm(hidden)
        keys, values = self._split(attention.k(normed)), self._split(attention.v(normed))
        self.cache.append(at, rows, ends, keys, values)
        return self._attend(attention, normed, self.cache.keys[at][slots], self.cache.values[at][slots], bias)

    def _cross_attention(
        self, at: int, layer: Any, hidden: torch.Tensor, slots: slice, bias: torch.Tensor
    ) -> torch.Tensor:
        normed, attention = layer.layer_norm(hidden), layer.EncDecAttention
        return self._attend(attention, normed, self.cross.keys[at][slots], self.cross.values[at][slots], bias)

    def _attend(
        self, attention: Any, normed: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        attended = attend(self._split(attention.q(normed)), keys, values, bias)
        output: torch.Tensor = attention.o(attended.transpose(1, 2).reshape(len(normed), normed.shape[1], -1))
        return output

    def _self_bias(self, lengths: torch.Tensor) -> torch.Tensor:
        """The bias [n, heads, 1, columns] of each sequence's newest token towards its
        earlier ones and itself."""
        columns = self.cache.columns
        if self.bias.shape[1] != columns:  # by distance from the newest token [heads, columns]
            attention = self.blocks[0].layer[0].SelfAttention
            bias = attention.compute_bias(1, columns, past_seen_tokens=columns - 1)[0, :, 0].flip(-1)
            self.bias = bias.to(self.device)
        distance = lengths[:, None] - torch.arange(columns, device=lengths.device)
        nearest = self.bias[:, distance.clamp(min=0)].transpose(0, 1)[:, :, None]
        return nearest.masked_fill((distance < 0)[:, None, None], float("-inf"))


def _hide(hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A boolean mask [n, columns] (true: hidden) as numbers that are added to attention
    scores [n, 1, 1, columns].

    They are the lowest number, not infinity, as in transformers' encoder: in an empty
    slot everything is hidden.
    """
    bias = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
    return bias.masked_fill_(hidden, torch.finfo(dtype).min)[:, None, None]
