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

from blip2cli.model.batches import Batches, Failed
from blip2cli.model.decoding.requests import Completion, Request
from blip2cli.model.decoding.sampling import Sampler
from blip2cli.model.memory import SLOTS_PER_IMAGE

ENDED = -1
"""Stands for the end of a forced text."""


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
    logprob: float = 0.0
    scored: int = 0


class Decoder:
    """Decodes a stream of requests; completions come in the order in which they end.

    Requests are taken from the stream only when a quarter of the slots is free, so that what produces them (the
    encoder) is asked for no more than is needed, and admission is done for several at a time.
    """

    def __init__(self, language_model: LanguageModel, sampler: Sampler) -> None:
        self.model = language_model
        self.sampler = sampler
        self.batches = Batches(language_model.slots)
        self.active: list[_Sequence] = []

    @property
    def batch_size(self) -> int:
        """The encoding batch that goes with the slots there are."""
        return max(1, self.model.slots // SLOTS_PER_IMAGE)

    def decode(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Decode until the stream is dry.

        On CUDA out of memory, go on with half the slots; nothing is lost. On any other failure, the texts in flight are
        written anew, split until those that fail are alone.
        """
        stream = iter(requests)
        self._restart()
        while True:
            fresh = self._due(stream)  # what the stream raises is not a failure of decoding
            try:
                self._admit(fresh)
                if not self.active:
                    return
                written = self._step()
            except torch.OutOfMemoryError:
                if self.model.slots == 1:
                    raise
                self.batches.largest = self.model.slots // 2
                stream = itertools.chain([sequence.request for sequence in self.active], stream)
                self._restart()
                continue
            except Exception:
                again = [sequence.request for sequence in self.active]
                written = list(zip(again, self.batches.compute(self._apart, again), strict=True))
                self._restart()
            yield from [self._complete(*each) for each in written]

    def stream(self, request: Request) -> Iterator[int]:
        """The tokens of one text, each as soon as it is written. What the model raises is raised."""
        self._restart()
        self._admit(self._sequences([request]))
        while self.active:
            (sequence,) = self.active
            before = len(sequence.written)
            self._step()
            yield from sequence.written[before:]

    def _restart(self) -> None:
        self.active = []
        self.model.reset(self.batches.largest)

    def _apart(self, requests: Sequence[Request]) -> list[_Sequence]:
        """The texts of requests that are decoded with no others beside them."""
        self._restart()
        self._admit(self._sequences(requests))
        written: dict[int, _Sequence] = {}
        while self.active:
            written.update((id(request), text) for request, text in self._step())
        return [written[id(request)] for request in requests]

    def _complete(self, request: Request, written: _Sequence | Failed) -> Completion:
        image = request.image
        image.uses -= 1
        if image.uses < 1:
            image.prefix = None
        if isinstance(written, Failed):
            return Completion(request.key, (), written.error)
        return Completion(request.key, tuple(written.written), None, written.logprob, written.scored)

    def _due(self, stream: Iterator[Request]) -> list[_Sequence]:
        """The sequences to be admitted now."""
        free = self.model.slots - len(self.active)
        if self.active and free < max(1, self.model.slots // 4):
            return []
        return self._sequences(itertools.islice(stream, free))

    def _sequences(self, requests: Iterable[Request]) -> list[_Sequence]:
        ordered = sorted(requests, key=self.model.shares)
        return [_Sequence(request, 0, self.sampler.random(request)) for request in ordered]

    def _admit(self, fresh: list[_Sequence]) -> None:
        if not fresh:
            return
        self.active += fresh
        tokens = self.model.admit([sequence.request for sequence in fresh])
        for sequence, token in zip(fresh, tokens, strict=True):
            sequence.pending = token

    def _step(self) -> list[tuple[Request, _Sequence]]:
        """Write a token of each text; gives those that end."""
        logits = self.model.step([sequence.pending for sequence in self.active])
        scores = self._scores(logits)
        early = [
            slot for slot, sequence in enumerate(self.active) if len(sequence.written) < sequence.request.lengths[0]
        ]
        tokens = self.sampler.choose(logits, self._seen(logits), early, [sequence.random for sequence in self.active])
        ended: list[int] = []
        for slot, (sequence, token) in enumerate(zip(self.active, tokens, strict=True)):
            if sequence.request.forced:
                if self._write_forced(sequence):
                    ended.append(slot)
                continue
            sequence.pending = token
            stops = token in self.sampler.end_ids
            if not stops:
                sequence.written.append(token)
            if stops or len(sequence.written) >= sequence.request.lengths[1]:
                ended.append(slot)
        if scores is not None:
            self._score(scores)
        for slot in reversed(ended):
            self.model.retire(slot)
        taken = [self._take(slot) for slot in reversed(ended)][::-1]
        if taken:
            self.batches.worked()
        return [(sequence.request, sequence) for sequence in taken]

    @staticmethod
    def _write_forced(sequence: _Sequence) -> bool:
        """Add the next of the tokens that are forced; tells whether the text ends."""
        at, forced = len(sequence.written), sequence.request.forced
        stops = at == len(forced)
        sequence.pending = ENDED if stops else forced[at]
        if not stops:
            sequence.written.append(sequence.pending)
        return stops

    def _scores(self, logits: torch.Tensor) -> torch.Tensor | None:
        """The logarithms of all tokens' probabilities, where they are asked for, and behind them that of the end."""
        if not (self.sampler.settings.scores or any(sequence.request.forced for sequence in self.active)):
            return None
        scores = torch.log_softmax(logits.float(), dim=-1)
        ends = scores[:, list(self.sampler.end_ids)].logsumexp(dim=-1, keepdim=True)
        return torch.cat([scores, ends], dim=-1)

    def _score(self, scores: torch.Tensor) -> None:
        """Add the tokens just written; of a forced text's end, any end token's."""
        tokens = torch.tensor([[sequence.pending] for sequence in self.active], device=scores.device)
        tokens[tokens == ENDED] = scores.shape[1] - 1
        for sequence, logprob in zip(self.active, scores.gather(1, tokens)[:, 0].tolist(), strict=True):
            sequence.logprob += logprob
            sequence.scored += 1

    def _take(self, slot: int) -> _Sequence:
        sequence, last = self.active[slot], self.active.pop()
        if last is not sequence:
            self.active[slot] = last
        return sequence

    def _seen(self, logits: torch.Tensor) -> torch.Tensor | None:
        """Which tokens each sequence holds, where a repetition penalty asks for it."""
        if self.sampler.settings.repetition_penalty == 1.0:
            return None
        seen = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
        for slot, sequence in enumerate(self.active):
            seen[slot, [*self.model.seen(sequence.request), *sequence.written]] = True
        return seen
