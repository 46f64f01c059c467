"""Requests to completions, in flight: a sequence that ends makes room for the next at once.

Greedy decoding and sampling only; beam search is in `beam`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from blip2cli.model.memory import SLOTS_PER_IMAGE
from blip2cli.model.requests import Completion, Request
from blip2cli.model.sampling import Sampler


class LanguageModel(Protocol):
    """A language model over slots; see OptDecoder and T5Decoder."""

    slots: int

    def reset(self, slots: int) -> None: ...
    def seen(self, request: Request) -> tuple[int, ...]: ...
    def shares(self, request: Request) -> bool: ...
    def admit(self, requests: Sequence[Request]) -> list[int]: ...
    def step(self, tokens: Sequence[int]) -> torch.Tensor: ...
    def retire(self, slot: int) -> None: ...


@dataclass(slots=True)
class _Sequence:
    """One text being written; its place in the decoder's list is its slot."""

    request: Request
    pending: int
    random: np.random.Generator | None
    written: list[int] = field(default_factory=list)


class Decoder:
    """Decodes a stream of requests; completions come in the order in which they end.

    Requests are taken from the stream only when a quarter of the slots is free, so that what produces them (the
    encoder) is asked for no more than is needed, and admission is done for several at a time.
    """

    def __init__(self, language_model: LanguageModel, sampler: Sampler) -> None:
        self.model = language_model
        self.sampler = sampler
        self.active: list[_Sequence] = []
        self.seen: torch.Tensor | None = None

    @property
    def batch_size(self) -> int:
        """The encoding batch that goes with the slots there are."""
        return max(1, self.model.slots // SLOTS_PER_IMAGE)

    def decode(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Decode until the stream is dry. On CUDA out of memory, go on with half the slots; nothing is lost."""
        stream = iter(requests)
        self.active = []
        self.model.reset(self.model.slots)
        while True:
            try:
                self._admit(stream)
                if not self.active:
                    return
                completions = self._step()
            except torch.OutOfMemoryError:
                if self.model.slots == 1:
                    raise
                stream = itertools.chain([sequence.request for sequence in self.active], stream)
                self.active = []
                self.model.reset(self.model.slots // 2)
                continue
            yield from completions

    def _admit(self, stream: Iterator[Request]) -> None:
        free = self.model.slots - len(self.active)
        if self.active and free < max(1, self.model.slots // 4):
            return
        fresh = sorted(itertools.islice(stream, free), key=self.model.shares)
        if not fresh:
            return
        first = len(self.active)
        self.active += [_Sequence(request, 0, self.sampler.random(request)) for request in fresh]
        for sequence, token in zip(self.active[first:], self.model.admit(fresh), strict=True):
            sequence.pending = token

    def _step(self) -> list[Completion]:
        logits = self.model.step([sequence.pending for sequence in self.active])
        early = [
            slot for slot, sequence in enumerate(self.active) if len(sequence.written) < sequence.request.lengths[0]
        ]
        tokens = self.sampler.choose(logits, self._seen(logits), early, [sequence.random for sequence in self.active])
        ended: list[int] = []
        for slot, (sequence, token) in enumerate(zip(self.active, tokens, strict=True)):
            sequence.pending = token
            stops = token in self.sampler.end_ids
            if not stops:
                sequence.written.append(token)
            if stops or len(sequence.written) >= sequence.request.lengths[1]:
                ended.append(slot)
        return [self._retire(slot) for slot in reversed(ended)][::-1]

    def _retire(self, slot: int) -> Completion:
        sequence = self.active[slot]
        self.model.retire(slot)
        last = self.active.pop()
        if last is not sequence:
            self.active[slot] = last
        image = sequence.request.image
        image.uses -= 1
        if image.uses < 1:
            image.prefix = None
        return Completion(sequence.request.key, tuple(sequence.written))

    def _seen(self, logits: torch.Tensor) -> torch.Tensor | None:
        """Which tokens each sequence holds, where a repetition penalty asks for it."""
        if self.sampler.settings.repetition_penalty == 1.0:
            return None
        seen = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
        for slot, sequence in enumerate(self.active):
            seen[slot, [*self.model.seen(sequence.request), *sequence.written]] = True
        return seen
