"""Decoder-only language models one step at a time, over a SlotCache; what is one family's alone is in its own file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from blip2cli.model.decoding.cache import SlotCache, attend
from blip2cli.model.decoding.graphs import StepGraph
from blip2cli.model.decoding.requests import EncodedImage, Request
from blip2cli.model.placement import device_of

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(queries, keys, values) of a layer, each [n, heads, length, head width], to the attended values of the same shape."""

AttendAt = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""The same with the layer's number before them."""


class DecoderOnly(ABC):
    """A decoder-only language model, decoding up to `slots` sequences of different age together.

    A sequence is [query embeddings][prompt]. The image's part is prefilled when the sequence is admitted, once an image
    however many prompts it gets; the prompt's last token waits to be fed in the next step, with everybody's. Layers may
    lie on several devices: what is called inside them is brought there here, all else by `placement.connect`.

    A family says what its `embedding` and `layers` are, and has the methods `_place`, `_layer` and `_logits`. Prompts
    are bounded by `positions`, so that nothing in use is beyond them.

    Args:
        language_model: of transformers, in evaluation mode.
        slots: sequences at most.
        image_token: what stands for the image where a repetition penalty counts tokens.
        graphs: whether to record steps as CUDA graphs.
    """

    embedding: nn.Embedding
    layers: nn.ModuleList

    def __init__(self, language_model: Any, slots: int, image_token: int | None = None, graphs: bool = False) -> None:
        self.graphs = graphs
        self.image_token = image_token
        self.config = language_model.config
        self.positions = self.config.max_position_embeddings
        self.heads = self.config.num_attention_heads
        self.width = self.config.hidden_size // self.heads
        self.devices = [device_of(layer) for layer in self.layers]
        self.reset(slots)

    @abstractmethod
    def _place(self, embeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Embeddings of tokens and images [n, length, width] to what the first layer is given.

        `positions` are [length] or [n, length].
        """

    @abstractmethod
    def _layer(self, layer: Any, hidden: torch.Tensor, positions: torch.Tensor, attend: Attend) -> torch.Tensor:
        """One layer over [n, length, width]; keys are kept as they are given to `attend`, queries scaled."""

    @abstractmethod
    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """What the last layer gives [n, width] to logits [n, vocabulary]."""

    def reset(self, slots: int) -> None:
        """Forget all sequences, and hold up to `slots` from now on."""
        self.slots = slots
        like = self.embedding.weight
        self.cache = SlotCache(self.devices, slots, self.heads, self.width, like)
        self.rows = torch.arange(slots, device=like.device)
        self.ages: list[int] = []
        self.graph = StepGraph(slots, like.device) if self.graphs else None

    def seen(self, request: Request) -> tuple[int, ...]:
        """The token ids that a repetition penalty counts from the start; `generate` has placeholders among them."""
        return request.prompt_ids if self.image_token is None else (self.image_token, *request.prompt_ids)

    def admit(self, requests: Sequence[Request]) -> list[int]:
        """Put sequences into the next free slots; gives each one's token to be fed in the next step.

        The requests are sorted: those that share no image first.
        """
        alone = [request for request in requests if not self.shares(request)]
        shared = requests[len(alone) :]
        if alone:
            images = torch.stack([request.image.query_embeds for request in alone])
            self._extend(images, alone, past=0)
        if shared:
            self._prefill_prefixes([request.image for request in shared])
            self._copy_prefixes(shared)
        return [request.prompt_ids[-1] for request in requests]

    @staticmethod
    def shares(request: Request) -> bool:
        """Whether the image's keys and values serve other requests too."""
        return not (request.image.uses == 1 and request.image.prefix is None)

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Feed each sequence its token; gives the logits [sequences, vocabulary] of the next."""
        n = len(tokens)
        self.cache.reserve(max(self.ages) + 1)
        fed, lengths = torch.tensor(tokens, device=self.rows.device), self.cache.lengths[:n]
        if self.graph is None:
            logits = self._forward(fed, lengths)
        else:
            columns = self.cache.columns
            logits = self.graph.run(self._forward, fed, lengths, shapes=columns, spare=columns - 1)
        lengths += 1
        self.ages = [age + 1 for age in self.ages]
        return logits

    def _forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """A step over the first slots' sequences of these lengths.

        It attends to all columns there are, masked: a slice of the cache would be copied for every product.
        """
        n = len(tokens)
        inside = lengths[:, None].clamp(max=self.positions - 1)  # slots not in use may stand anywhere
        hidden = self.embedding(tokens[:, None])
        unseen = torch.arange(self.cache.columns, device=lengths.device) > lengths[:, None]
        masks = self.cache.everywhere(_hide(unseen, hidden.dtype)[:, None, None])
        rows, ends = self.cache.everywhere(self.rows[:n]), self.cache.everywhere(lengths)

        def attend_newest(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            self.cache.append(layer, rows[layer], ends[layer], k, v)
            return attend(q, self.cache.keys[layer][:n], self.cache.values[layer][:n], masks[layer])

        return self._logits(self._layers(hidden, inside, attend_newest)[:, 0])

    def retire(self, slot: int) -> None:
        """End the sequence in a slot; the last sequence takes its place."""
        last = len(self.ages) - 1
        if slot != last:
            self.cache.move(last, slot, self.ages[last])
        age = self.ages.pop()
        if slot != last:
            self.ages[slot] = age

    def _extend(self, start: torch.Tensor, requests: Sequence[Request], past: int) -> None:
        """Write [start][prompt but its last token] behind `past` columns; `start` is [n, length, width]."""
        prompts = [request.prompt_ids[:-1] for request in requests]
        longest = max(map(len, prompts))
        first = len(self.ages)
        slots = slice(first, first + len(requests))
        embeds = start
        if longest:
            padded = [prompt + (0,) * (longest - len(prompt)) for prompt in prompts]
            embeds = torch.cat([start, self.embedding(torch.tensor(padded, device=start.device))], dim=1)
        ages = [past + start.shape[1] + len(prompt) for prompt in prompts]
        self.ages += ages
        self.cache.lengths[slots] = torch.tensor(ages, device=start.device)
        columns = slice(past, past + embeds.shape[1])
        self.cache.reserve(columns.stop + 1)
        if columns.start == columns.stop:
            return
        positions = torch.arange(columns.start, columns.stop, device=start.device)
        there = self.cache.columns if past else columns.stop
        unseen = torch.arange(there, device=start.device) > positions[:, None]
        masks = self.cache.everywhere(_hide(unseen, embeds.dtype))
        written = positions < torch.tensor(ages, device=start.device)[:, None]  # the others are padding

        def attend_padded(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            self.cache.fill(layer, slots, columns, k, v)
            if past:
                k, v = self.cache.keys[layer][slots], self.cache.values[layer][slots]
            return attend(q, k, v, masks[layer])

        def attend_packed(layer: int, *packed: torch.Tensor) -> torch.Tensor:
            padded = (_padded(states, tokens[layer]) for states in packed)
            return attend_padded(layer, *padded).transpose(1, 2)[tokens[layer]].transpose(0, 1)[None]

        if written.all():
            self._layers(embeds, positions, attend_padded)
        else:  # only attention works on padding
            tokens = self.cache.everywhere(written)
            self._layers(embeds[written][None], positions.expand(written.shape)[written][None], attend_packed)

    def _prefill_prefixes(self, images: list[EncodedImage]) -> None:
        new = list({id(image): image for image in images if image.prefix is None}.values())
        if not new:
            return
        embeds = torch.stack([image.query_embeds for image in new])
        positions = torch.arange(embeds.shape[1], device=embeds.device)
        masks = self.cache.everywhere(_hide(positions > positions[:, None], embeds.dtype))
        kept: list[torch.Tensor] = []

        def attend_and_keep(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            kept.append(torch.stack([k, v]))
            return attend(q, k, v, masks[layer])

        self._layers(embeds, positions, attend_and_keep)
        prefixes = self.cache.stacked(kept)  # each [2, layers, images, heads, num_query_tokens, head width]
        for at, image in enumerate(new):
            image.prefix = [part[:, :, at] for part in prefixes]

    def _copy_prefixes(self, requests: Sequence[Request]) -> None:
        first, width = len(self.ages), requests[0].image.query_embeds.shape[0]
        self.cache.reserve(width + 1)
        for slot, request in enumerate(requests, first):
            assert request.image.prefix is not None
            for block, part in zip(self.cache.blocks, request.image.prefix, strict=True):
                block[:, :, slot, :, :width] = part
        nothing = requests[0].image.query_embeds.new_empty(len(requests), 0, requests[0].image.query_embeds.shape[1])
        self._extend(nothing, requests, past=width)

    def _layers(self, embeds: torch.Tensor, positions: torch.Tensor, attend: AttendAt) -> torch.Tensor:
        """All layers over embeddings [n, length, width] that stand at these positions."""
        hidden = self._place(embeds, positions)
        places = self.cache.everywhere(positions)
        for at, layer in enumerate(self.layers):
            hidden = self._layer(layer, hidden.to(self.devices[at]), places[at], partial(attend, at))
        return hidden

    def _split(self, states: torch.Tensor) -> torch.Tensor:
        """[n, length, width] to [n, heads, length, head width]."""
        n, length, _ = states.shape
        return states.view(n, length, self.heads, -1).transpose(1, 2)


def _padded(packed: torch.Tensor, written: torch.Tensor) -> torch.Tensor:
    """States [1, heads, tokens, width] of all sequences end to end, as [n, heads, length, width]."""
    padded = packed.new_zeros(*written.shape, packed.shape[1], packed.shape[3])
    padded[written] = packed[0].transpose(0, 1)
    return padded.transpose(1, 2)


def _hide(hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A boolean mask (true: not to be seen) as what is added to attention scores."""
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, float("-inf"))
