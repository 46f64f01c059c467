"""What the loop asks of a way to choose tokens: greedy, sampling and beam search have this in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from blip2cli.model.decoding.cache import GRANULE
from blip2cli.model.decoding.language_model import LanguageModel
from blip2cli.model.decoding.requests import Request, Written
from blip2cli.model.graphs import sent
from blip2cli.settings import GenerationSettings

Tensors = tuple[torch.Tensor, ...]


@dataclass(slots=True, eq=False)
class Text:
    """A request while its text is being written.

    Args:
        request: what is asked.
        place: which group of slots it is in: from place × width of the search on.
        columns: keys and values that its sequences have.
        written: what has been written; of beam search, the best beams once it has ended.
    """

    request: Request
    place: int
    columns: int
    written: list[Written]


@dataclass(frozen=True)
class Choice:
    """What was chosen in a step.

    `tokens` [n] are to be fed next. `outcome` is what the host is to learn. With beam search, `parents` [n] are the
    slots whose sequences the tokens follow.
    """

    tokens: torch.Tensor
    outcome: Tensors
    parents: torch.Tensor | None = None


class Search(ABC):
    """A way to choose tokens. What it needs to know of each text lies on the device, and is written on admission only.

    Args:
        settings: how to decode.
        end_ids: tokens that end a text.
        width: the slots that a text takes.
        returned: how many texts each request gets.
    """

    def __init__(self, settings: GenerationSettings, end_ids: Sequence[int], width: int = 1, returned: int = 1) -> None:
        self.settings = settings
        self.end_ids = tuple(end_ids)
        self.width = width
        self.returned = returned

    def reset(self, model: LanguageModel) -> None:
        """Hold as many texts as the language model has room for, and forget all."""
        self.device, self.places = model.device, model.slots // self.width
        self.longest = 0
        self.bounded = self.forcing = False
        self.ends = torch.tensor(self.end_ids, dtype=torch.long, device=self.device)
        self.count = torch.zeros(self.places, dtype=torch.long, device=self.device)
        self.least, self.most = torch.zeros_like(self.count), torch.zeros_like(self.count)
        self.counted: torch.Tensor | None = None
        if self.settings.repetition_penalty != 1.0:
            shape = (model.slots, model.vocabulary)
            self.counted = torch.zeros(shape, dtype=torch.bool, device=self.device)

    def fits(self, requests: Sequence[Request]) -> bool:
        """Whether there is room for the requests' longest text, and what they need is known."""
        bounded, forcing = self._needs(requests)
        return self._length(requests) <= self.longest and bounded <= self.bounded and forcing <= self.forcing

    def grow(self, requests: Sequence[Request]) -> None:
        """Make room for the requests' longest text, keeping what is there."""
        bounded, forcing = self._needs(requests)
        self.bounded, self.forcing = self.bounded or bounded, self.forcing or forcing
        longest = max(self.longest, -(-self._length(requests) // GRANULE) * GRANULE)
        self._lengthen(longest - self.longest)
        self.longest = longest

    def admit(self, requests: Sequence[Request], places: torch.Tensor, seen: Sequence[Sequence[int]]) -> None:
        """Start texts at places [n]; `seen` are the tokens of each that a repetition penalty counts."""
        lengths = sent([request.lengths for request in requests], self.device)
        self.count[places] = 0
        self.least[places], self.most[places] = lengths.unbind(1)
        if self.counted is not None:
            counted = torch.zeros(len(requests), self.counted.shape[1], dtype=torch.bool)
            for row, tokens in zip(counted, seen, strict=True):
                row[list(tokens)] = True
            self.counted.view(self.places, self.width, -1)[places] = sent(counted, self.device)[:, None]

    @abstractmethod
    def choose(self, logits: torch.Tensor) -> Choice:
        """Choose a token for each of the first n slots by their logits [n, vocabulary], which may be written over."""

    @abstractmethod
    def take(self, texts: Sequence[Text], outcome: Tensors) -> list[Text]:
        """Note on the host what was chosen for texts; gives those that end."""

    @abstractmethod
    def _lengthen(self, more: int) -> None:
        """Make what is kept for each token of a text that much longer."""

    def copy(self, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copy texts from places [n] to others [n]."""
        for state in self._state():
            state[targets] = state[sources]

    def _state(self) -> list[torch.Tensor]:
        """What is kept of each text, [places, ...]."""
        state = [self.count, self.least, self.most]
        if self.counted is not None:
            state.append(self.counted.view(self.places, self.width, -1))
        return state

    def _penalized(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores [n, vocabulary] as transformers' logits processors leave them: repetition first, then the ends."""
        n = len(scores)
        if self.counted is not None:
            penalty = self.settings.repetition_penalty
            penalized = torch.where(scores < 0, scores * penalty, scores / penalty)
            scores = torch.where(self.counted[:n], penalized, scores)
        if self.bounded and self.end_ids:
            count = n // self.width
            early = (self.count[:count] < self.least[:count]).repeat_interleave(self.width)
            scores[:, self.ends] = scores[:, self.ends].masked_fill(early[:, None], float("-inf"))
        return scores

    def _count(self, tokens: torch.Tensor) -> None:
        """Let a repetition penalty count the tokens [n] too."""
        if self.counted is not None:
            self.counted[: len(tokens)].scatter_(1, tokens[:, None], True)

    @staticmethod
    def _length(requests: Sequence[Request]) -> int:
        return max(max(request.lengths[1], len(request.forced) + 1) for request in requests)

    @staticmethod
    def _needs(requests: Sequence[Request]) -> tuple[bool, bool]:
        return any(request.lengths[0] > 0 for request in requests), any(request.forced for request in requests)


def lengthened(table: torch.Tensor, more: int, value: int = 0) -> torch.Tensor:
    """A table with so many more entries at the end of its last dimension."""
    return F.pad(table, (0, more), value=value)
