"""Decoder-only language models, one step at a time, with a SlotCache.

Each family's own part is in its own file.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

import torch
from torch import nn

from blip2cli.model.checkpoint.placement import device_of
from blip2cli.model.decoding.cache import attend, hide
from blip2cli.model.decoding.language_model import LanguageModel, Placed
from blip2cli.model.decoding.requests import Prefix, Request
from blip2cli.model.graphs import Runner, to_device

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(queries, keys, values) of a layer, each [n, heads, length, head width], to the
attended values of the same shape."""

AttendAt = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""The same with the layer's number before them."""


class DecoderOnly(LanguageModel):
    """A decoder-only language model; a sequence is [query embeddings][prompt][text].

    The image is read when the sequence is admitted, once however many prompts it gets;
    the prompt's last token is the input of the next step. A family sets `embedding` and
    `layers`, and has methods `_place`, `_layer` and `_logits`.

    Args:
        language_model: of transformers, in evaluation mode.
        runner: runs functions on the device.
        image_token: the token that represents the image where a repetition penalty counts
            tokens.
    """

    embedding: nn.Embedding
    layers: nn.ModuleList

    def __init__(self, language_model: Any, runner: Runner, image_token: int | None = None) -> None:
        self.image_token = image_token
        config = language_model.config
        self.positions = config.max_position_embeddings
        heads = config.num_attention_heads
        devices = [device_of(layer) for layer in self.layers]
        width = config.hidden_size // heads
        super().__init__(devices, heads, width, self.embedding.weight, 1, config.vocab_size, runner)

    @abstractmethod
    def _place(self, embeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The first layer's input, from embeddings of tokens and images [n, length,
        width].

        `positions` are [length] or [n, length].
        """

    @abstractmethod
    def _layer(self, layer: Any, hidden: torch.Tensor, positions: torch.Tensor, attend: Attend) -> torch.Tensor:
        """One layer over [n, length, width]; keys are stored as they are given to
        `attend`, queries are scaled."""

    @abstractmethod
    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [n, vocabulary], from the last layer's output [n, width]."""

    @staticmethod
    def forced_logits(
        language_model: Any, query_embeds: torch.Tensor, prompt_ids: Sequence[int], text_ids: Sequence[int]
    ) -> torch.Tensor:
        ids = torch.tensor([[*prompt_ids, *text_ids[:-1]]], device=query_embeds.device)
        tokens = language_model.get_input_embeddings()(ids)
        embeds = torch.cat([query_embeds.to(tokens.dtype), tokens], dim=1)
        logits: torch.Tensor = language_model(inputs_embeds=embeds, use_cache=False).logits
        return logits[0, -len(text_ids) :]

    def start(self, request: Request) -> tuple[int, int]:
        return request.prompt_ids[-1], len(request.image.query_embeds) + len(request.prompt_ids) - 1

    def seen(self, request: Request) -> tuple[int, ...]:
        """The prompt's tokens; `generate` has placeholders for the image among them."""
        return request.prompt_ids if self.image_token is None else (self.image_token, *request.prompt_ids)

    def room(self, requests: Sequence[Request]) -> tuple[int, ...]:
        image = len(requests[0].image.query_embeds)
        prompt = self._padded_length(max(len(request.prompt_ids) for request in requests))
        return (image + prompt + max(request.lengths[1] for request in requests) + 2,)

    def admit(self, requests: Sequence[Request], slots: Sequence[int]) -> None:
        self.start_column = len(requests[0].image.query_embeds)
        self.cache.clear(to_device(list(slots), self.device), self.start_column)
        placed = list(zip(requests, slots, strict=True))
        alone = [pair for pair in placed if not pair[0].image.shared]
        shared = [pair for pair in placed if pair[0].image.shared]
        for chunk in self._chunks(alone):
            self._read(torch.stack([request.image.query_embeds for request, _ in chunk]), chunk)
        begun = self._keep_prefixes([request for request, _ in shared])
        for chunk in self._chunks(shared):
            self._copy_prefixes(chunk, self.start_column + begun)
            nothing = chunk[0][0].image.query_embeds[:0]
            self._read(nothing.expand(len(chunk), *nothing.shape), chunk, begun)

    def step_in(self, slots: slice, tokens: torch.Tensor) -> torch.Tensor:
        """A step attends to all columns, with a mask: a slice of the cache would be
        copied for every product."""
        lengths = self.cache.lengths[slots]
        positions = lengths[:, None].clamp(max=self.positions - 1)  # unused slots may have any length
        embeds = self.embedding(tokens[:, None])
        unseen = torch.arange(self.cache.columns, device=lengths.device) > lengths[:, None]
        masks = self.cache.everywhere(hide(unseen, embeds.dtype)[:, None, None])
        rows, ends = self.cache.everywhere(self.rows[slots]), self.cache.everywhere(lengths)

        def attend_newest(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            self.cache.append(layer, rows[layer], ends[layer], k, v)
            return attend(q, self.cache.keys[layer][slots], self.cache.values[layer][slots], masks[layer])

        logits = self._logits(self._layers(embeds, positions, attend_newest)[:, 0])
        self.cache.lengths[slots] = (lengths + 1).clamp(max=self.cache.columns - 1)
        return logits

    def _read(self, images: torch.Tensor, placed: Sequence[Placed], begun: int = 0) -> None:
        """Read [image][prompt without its last token] into slots.

        Args:
            images: [n, num_query_tokens, width], or [n, 0, width] if they have been read.
            begun: how many tokens of every prompt have been read.
        """
        prompts = [request.prompt_ids[begun:-1] for request, _ in placed]
        ids = torch.tensor(self._padded(prompts), dtype=torch.long).view(len(placed), -1)
        start = self.start_column + begun
        ends = to_device([start + len(prompt) for prompt in prompts], self.device)
        slots = to_device([slot for _, slot in placed], self.device)
        self.cache.reserve(start + ids.shape[1] + 1)
        self.cache.lengths[slots] = ends
        if images.shape[1] + ids.shape[1]:
            read = partial(self._read_tokens, start - images.shape[1])
            self.runner.run("read", read, images, to_device(ids, self.device), ends, slots)

    def _read_tokens(
        self, past: int, images: torch.Tensor, ids: torch.Tensor, ends: torch.Tensor, slots: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        embeds = torch.cat([images, self.embedding(ids)], dim=1)
        columns = slice(past, past + embeds.shape[1])
        positions = torch.arange(columns.start, columns.stop, device=embeds.device)
        seen = self.cache.columns if past else columns.stop  # all of them, as a slice would be copied
        unseen = torch.arange(seen, device=embeds.device) > positions[:, None]
        masks, rows = self.cache.everywhere(hide(unseen, embeds.dtype)), self.cache.places(slots)
        positions = positions.clamp(max=self.positions - 1).expand(embeds.shape[:2])

        def attend_padded(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            self.cache.fill(layer, rows[layer], columns, k, v)
            if past:
                k, v = self.cache.keys[layer][rows[layer]], self.cache.values[layer][rows[layer]]
            return attend(q, k, v, masks[layer])

        def attend_packed(layer: int, *packed: torch.Tensor) -> torch.Tensor:
            padded = (_padded(states, tokens[layer]) for states in packed)
            return attend_padded(layer, *padded).transpose(1, 2)[tokens[layer]].transpose(0, 1)[None]

        written = positions < ends[:, None]  # the others are padding
        if self.runner.fixed or written.all():
            self._layers(embeds, positions, attend_padded)
        else:  # only attention sees padding
            tokens = self.cache.everywhere(written)
            self._layers(embeds[written][None], positions[written][None], attend_packed)
        return ()

    def _keep_prefixes(self, requests: Sequence[Request]) -> int:
        """Compute the keys and values of images that have several requests, and of the
        tokens that all their prompts begin with, and keep them with the images.

        Returns how many tokens of every prompt can be copied with its image. Where shapes
        are fixed it is 0, because there would be a recording for each number of tokens.
        """
        beginning = () if self.runner.fixed else _beginning([request.prompt_ids[:-1] for request in requests])
        images = list({id(request.image): request.image for request in requests}.values())
        new = [image for image in images if image.prefix is None]
        size = self._together(len(new))
        for at in range(0, len(new), size):
            chunk = new[at : at + size]
            filled = chunk + chunk[-1:] * (size - len(chunk))
            embeds = torch.stack([image.query_embeds for image in filled])
            if beginning:
                tokens = self.embedding(to_device(beginning, self.device))
                embeds = torch.cat([embeds, tokens.expand(size, *tokens.shape)], dim=1)
            states = self.runner.run("prefix", self._read_images, embeds)
            owned = [part.clone() for part in states] if self.runner.fixed else states
            for number, image in enumerate(chunk):
                image.prefix = Prefix(beginning, [part[:, :, number] for part in owned])
        return len(_beginning([beginning, *(image.prefix.token_ids for image in images if image.prefix)]))

    def _read_images(self, embeds: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Keys and values [2, layers, images, heads, length, head width], a tensor a
        device, of embeddings [images, length, width]."""
        positions = torch.arange(embeds.shape[1], device=embeds.device)
        masks = self.cache.everywhere(hide(positions > positions[:, None], embeds.dtype))
        states: list[torch.Tensor] = []

        def attend_and_keep(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            states.append(torch.stack([k, v]))
            return attend(q, k, v, masks[layer])

        self._layers(embeds, positions, attend_and_keep)
        return tuple(self.cache.stacked(states))

    def _copy_prefixes(self, placed: Sequence[Placed], columns: int) -> None:
        """Copy the first columns of the requests' prefixes into their slots, in one
        operation for each device."""
        self.cache.reserve(columns + 1)
        slots = to_device([slot for _, slot in placed], self.device)
        prefixes = [request.image.prefix for request, _ in placed if request.image.prefix is not None]
        self.cache.put(slots, [prefix.first(columns) for prefix in prefixes])

    def _layers(self, embeds: torch.Tensor, positions: torch.Tensor, attend: AttendAt) -> torch.Tensor:
        """All layers, over embeddings [n, length, width] at these positions."""
        hidden = self._place(embeds, positions)
        places = self.cache.everywhere(positions)
        for at, layer in enumerate(self.layers):
            hidden = self._layer(layer, hidden.to(self.devices[at]), places[at], partial(attend, at))
        return hidden


def _beginning(sequences: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The tokens that all sequences begin with."""
    columns = zip(*sequences, strict=False)
    return tuple(tokens[0] for tokens in takewhile(lambda tokens: len(set(tokens)) == 1, columns))


def _padded(packed: torch.Tensor, written: torch.Tensor) -> torch.Tensor:
    """The states [1, heads, tokens, width] of concatenated sequences, as [n, heads,
    length, width]."""
    padded = packed.new_zeros(*written.shape, packed.shape[1], packed.shape[3])
    padded[written] = packed[0].transpose(0, 1)
    return padded.transpose(1, 2)
