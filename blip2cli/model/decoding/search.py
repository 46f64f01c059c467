"""`Search`, the interface of ways to choose tokens: greedy decoding, sampling and beam
search."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from blip2cli.model.decoding.cache import GRANULE
from blip2cli.model.decoding.language_model import LanguageModel
from blip2cli.model.decoding.requests import Request, WrittenTokens
from blip2cli.model.graphs import Tensors, to_device
from blip2cli.settings import GenerationSettings


@dataclass(slots=True, eq=False)
class Text:
    """A request while its text is being written.

    Args:
        request: the request.
        place: the number of its group of slots, which begins at slot place × width of the
            search.
        columns: how many keys and values its sequences have.
        written: its tokens so far; with beam search, the best beams once it has ended.
    """

    request: Request
    place: int
    columns: int
    written: list[WrittenTokens]


@dataclass(frozen=True)
class Choice:
    """What was chosen in a step.

    Args:
        tokens: the inputs of the next step [n].
        outcome: what the host needs to know.
        parents: with beam search, the slots whose sequences the tokens continue [n].
    """

    tokens: torch.Tensor
    outcome: Tensors
    parents: torch.Tensor | None = None


class Search(ABC):
    """A way to choose tokens. What it needs to know of each text is on the device, and is
    set at admission only.

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
        """Forget all texts, and make room for as many as the language model has slots
        for."""
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
        """Whether there is room for the requests' longest text, and for all that they
        need."""
        bounded, forcing = self._needs(requests)
        return self._length(requests) <= self.longest and bounded <= self.bounded and forcing <= self.forcing

    def grow(self, requests: Sequence[Request]) -> None:
        """Make room for the requests' longest text; the present contents are kept."""
        bounded, forcing = self._needs(requests)
        self.bounded, self.forcing = self.bounded or bounded, self.forcing or forcing
        longest = max(self.longest, -(-self._length(requests) // GRANULE) * GRANULE)
        self._lengthen(longest - self.longest)
        self.longest = longest

    def admit(self, requests: Sequence[Request], places: torch.Tensor, seen: Sequence[Sequence[int]]) -> None:
        """Start texts at places [n]; `seen` are the tokens of each that a repetition
        penalty counts."""
        lengths = to_device([request.lengths for request in requests], self.device)
        self.count[places] = 0
        self.least[places], self.most[places] = lengths.unbind(1)
        if self.counted is not None:
            counted = torch.zeros(len(requests), self.counted.shape[1], dtype=torch.bool)
            for row, tokens in zip(counted, seen, strict=True):
                row[list(tokens)] = True
            self.counted.view(self.places, self.width, -1)[places] = to_device(counted, self.device)[:, None]

    @abstractmethod
    def choose(self, logits: torch.Tensor) -> Choice:
        """Choose a token for each of the first n slots by their logits [n, vocabulary],
        which may be overwritten."""

    @abstractmethod
    def take(self, texts: Sequence[Text], outcome: Tensors) -> list[Text]:
        """Take note on the host of what was chosen for texts; returns the texts that end."""

    @abstractmethod
    def _lengthen(self, more: int) -> None:
        """Lengthen all tables that have an entry for each token of a text."""

    def copy(self, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copy texts from places [n] to others [n]."""
        for state in self._state():
            state[targets] = state[sources]

    def _state(self) -> list[torch.Tensor]:
        """The tensors that hold the state of each text, [places, ...]."""
        state = [self.count, self.least, self.most]
        if self.counted is not None:
            state.append(self.counted.view(self.places, self.width, -1))
        return state

    def _penalized(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores [n, vocabulary] as from transformers' logits processors: first for
        repetition, then for the ends."""
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
        """Include the tokens [n] in those that a repetition penalty counts."""
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
