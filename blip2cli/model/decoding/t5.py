"""T5 one step at a time, over a SlotCache. Matches transformers' `T5ForConditionalGeneration` in evaluation mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from blip2cli.model.decoding.cache import SlotCache, attend
from blip2cli.model.decoding.graphs import StepGraph
from blip2cli.model.decoding.requests import Request
from blip2cli.model.placement import device_of


class T5Decoder:
    """The language model of a Flan-T5 checkpoint, decoding up to `slots` sequences of different age together.

    The encoder reads [query embeddings][prompt] when a sequence is admitted; its keys and values for the decoder's
    cross-attention are kept in the sequence's slot. The bias of self-attention depends on distances only. Blocks may
    lie on several devices: what is called inside them is brought there here, all else by `placement.connect`.
    """

    def __init__(self, language_model: Any, slots: int, image_token: int | None = None, graphs: bool = False) -> None:
        self.graphs = graphs
        self.model = language_model
        self.config = language_model.config
        self.blocks = language_model.decoder.block
        self.heads, self.width = self.config.num_heads, self.config.d_kv
        self.devices = [device_of(block) for block in self.blocks]
        self.scaled = getattr(self.config, "scale_decoder_outputs", self.config.tie_word_embeddings)
        self.reset(slots)

    def reset(self, slots: int) -> None:
        """Forget all sequences, and hold up to `slots` from now on."""
        self.slots = slots
        like = self.model.shared.weight
        self.cache = SlotCache(self.devices, slots, self.heads, self.width, like)
        self.cross = SlotCache(self.devices, slots, self.heads, self.width, like)
        self.rows = torch.arange(slots, device=like.device)
        self.ages: list[int] = []
        self.read: list[int] = []
        self.bias = like.new_empty(self.heads, 0)
        self.graph = StepGraph(slots, like.device) if self.graphs else None

    def seen(self, request: Request) -> tuple[int, ...]:
        """The token ids that a repetition penalty counts from the start."""
        return (self.config.decoder_start_token_id,)

    @staticmethod
    def shares(request: Request) -> bool:
        """Admission needs no order here."""
        return False

    def admit(self, requests: Sequence[Request]) -> list[int]:
        """Put sequences into the next free slots; gives each one's token to be fed in the next step."""
        first, device = len(self.ages), self.rows.device
        longest = max(len(request.prompt_ids) for request in requests)
        padded = [request.prompt_ids + (0,) * (longest - len(request.prompt_ids)) for request in requests]
        images = torch.stack([request.image.query_embeds for request in requests])
        prompts = self.model.shared(torch.tensor(padded, device=device).long().view(len(requests), longest))
        read = [images.shape[1] + len(request.prompt_ids) for request in requests]
        lengths = torch.tensor(read, device=device)
        embeds = torch.cat([images.to(prompts.dtype), prompts], dim=1)
        mask = torch.arange(embeds.shape[1], device=device) < lengths[:, None]
        hidden = self.model.encoder(inputs_embeds=embeds, attention_mask=mask.long()).last_hidden_state
        slots = slice(first, first + len(requests))
        self.cross.reserve(embeds.shape[1])
        for at, (block, read_by) in enumerate(zip(self.blocks, self.cross.everywhere(hidden), strict=True)):
            attention = block.layer[1].EncDecAttention
            keys, values = self._split(attention.k(read_by)), self._split(attention.v(read_by))
            self.cross.fill(at, slots, slice(0, embeds.shape[1]), keys, values)
        self.cross.lengths[slots] = lengths
        self.cache.lengths[slots] = 0
        self.ages += [0] * len(requests)
        self.read += read
        return [self.config.decoder_start_token_id] * len(requests)

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Feed each sequence its token; gives the logits [sequences, vocabulary] of the next."""
        n = len(tokens)
        self.cache.reserve(max(self.ages) + 1)
        self._reserve_bias()
        fed, lengths = torch.tensor(tokens, device=self.rows.device), self.cache.lengths[:n]
        if self.graph is None:
            logits = self._forward(fed, lengths)
        else:
            columns, read = self.cache.columns, self.cross.columns
            logits = self.graph.run(self._forward, fed, lengths, shapes=(columns, read), spare=columns - 1)
        lengths += 1
        self.ages = [age + 1 for age in self.ages]
        return logits

    def _forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """A step over the first slots' sequences of these lengths, attending to all columns there are, masked."""
        n, bias = len(tokens), self._self_bias(lengths)
        unseen = torch.arange(self.cross.columns, device=lengths.device) >= self.cross.lengths[:n, None]
        cross_bias = torch.zeros(unseen.shape, dtype=bias.dtype, device=lengths.device)
        cross_bias = cross_bias.masked_fill_(unseen, torch.finfo(bias.dtype).min)[:, None, None]
        biases, cross_biases = self.cache.everywhere(bias), self.cache.everywhere(cross_bias)
        rows, ends = self.cache.everywhere(self.rows[:n]), self.cache.everywhere(lengths)
        hidden = self.model.shared(tokens[:, None])
        for at, block in enumerate(self.blocks):
            hidden = hidden.to(self.devices[at])
            hidden = hidden + self._self_attention(at, block.layer[0], hidden, rows[at], ends[at], biases[at])
            hidden = hidden + self._cross_attention(at, block.layer[1], hidden, cross_biases[at])
            hidden = block.layer[-1](hidden)
        hidden = self.model.decoder.final_layer_norm(hidden[:, 0])
        if self.scaled:
            hidden = hidden * self.config.d_model**-0.5
        logits: torch.Tensor = self.model.lm_head(hidden)
        return logits

    def retire(self, slot: int) -> None:
        """End the sequence in a slot; the last sequence takes its place."""
        last = len(self.ages) - 1
        if slot != last:
            self.cache.move(last, slot, self.ages[last])
            self.cross.move(last, slot, self.read[last])
            self.ages[slot], self.read[slot] = self.ages[last], self.read[last]
        self.ages.pop()
        self.read.pop()

    def _self_attention(
        self, at: int, layer: Any, hidden: torch.Tensor, rows: torch.Tensor, ends: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        n, attention = len(hidden), layer.SelfAttention
        normed = layer.layer_norm(hidden)
        keys, values = self._split(attention.k(normed)), self._split(attention.v(normed))
        self.cache.append(at, rows, ends, keys, values)
        return self._attend(attention, normed, self.cache.keys[at][:n], self.cache.values[at][:n], bias)

    def _cross_attention(self, at: int, layer: Any, hidden: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        n, attention = len(hidden), layer.EncDecAttention
        return self._attend(
            attention, layer.layer_norm(hidden), self.cross.keys[at][:n], self.cross.values[at][:n], bias
        )

    def _attend(
        self, attention: Any, normed: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        queries = self._split(attention.q(normed))
        attended = attend(queries, keys, values, bias)
        output: torch.Tensor = attention.o(attended.transpose(1, 2).reshape(len(normed), normed.shape[1], -1))
        return output

    def _split(self, states: torch.Tensor) -> torch.Tensor:
        return states.view(len(states), -1, self.heads, self.width).transpose(1, 2)

    def _reserve_bias(self) -> None:
        """The bias [heads, columns] by distance from the newest token, for all columns there are."""
        columns = self.cache.columns
        if self.bias.shape[1] < columns:
            attention = self.blocks[0].layer[0].SelfAttention
            bias = attention.compute_bias(1, columns, past_seen_tokens=columns - 1)[0, :, 0].flip(-1)
            self.bias = bias.to(self.rows.device)

    def _self_bias(self, lengths: torch.Tensor) -> torch.Tensor:
        """The bias [n, heads, 1, columns] of each sequence's newest token towards its earlier ones and itself."""
        distance = lengths[:, None] - torch.arange(self.cache.columns, device=lengths.device)
        bias = self.bias[:, distance.clamp(min=0)].transpose(0, 1)[:, :, None]
        return bias.masked_fill((distance < 0)[:, None, None], float("-inf"))
