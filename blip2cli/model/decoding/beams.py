"""Beam search: every text is written in several slots at once, and the most likely beams
are continued.

Matches transformers' `GenerationMixin._beam_search` on one request with `early_stopping`
false, whatever else is decoded at the same time: a text ends when its best open beam, by
its score at this length, is worse than all beams that ended.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from blip2cli.model.decoding.language_model import LanguageModel
from blip2cli.model.decoding.requests import Request, WrittenTokens
from blip2cli.model.decoding.search import Choice, Search, Tensors, Text, lengthened
from blip2cli.settings import GenerationSettings

LOWEST = -1.0e9
"""The score of a beam that does not exist, as in transformers."""


class BeamSearch(Search):
    """`num_beams` sequences for each text. In shapes: t texts, b beams, k candidates, v
    vocabulary, l tokens a text.

    Of open beams, in order of their scores: `scores` [t, b], the sum of their tokens'
    log-probabilities after penalties; `tokens` [t, b, l]; `logprobs` [t, b], the same sum
    before penalties. Of those that ended, in order: `ended_scores` [t, b], with the
    length penalty; `ended` [t, b], whether there is one; `ended_tokens`, `ended_lengths`
    and `ended_logprobs`.
    """

    def __init__(self, settings: GenerationSettings, end_ids: Sequence[int], returned: int = 1) -> None:
        super().__init__(settings, end_ids, settings.num_beams, returned)
        self.candidates = max(2, 1 + len(self.end_ids)) * self.width  # enough that `width` of them do not end

    def reset(self, model: LanguageModel) -> None:
        super().reset(model)
        shape, device = (self.places, self.width), self.device
        self.scores = torch.zeros(shape, device=device)
        self.tokens = torch.zeros(*shape, 0, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(shape, device=device)
        self.ended_scores = torch.zeros(shape, device=device)
        self.ended = torch.zeros(shape, dtype=torch.bool, device=device)
        self.ended_tokens = torch.zeros_like(self.tokens)
        self.ended_lengths = torch.zeros(shape, dtype=torch.long, device=device)
        self.ended_logprobs = torch.zeros(shape, device=device)
        self.hopeful = torch.zeros(self.places, dtype=torch.bool, device=device)
        self.divisors = torch.ones(1, device=device)
        self.is_end = torch.zeros(model.vocabulary, dtype=torch.bool, device=device)
        self.is_end[self.ends] = True

    def admit(self, requests: Sequence[Request], places: torch.Tensor, seen: Sequence[Sequence[int]]) -> None:
        super().admit(requests, places, seen)
        self.scores[places] = LOWEST
        self.scores[places, 0] = 0.0  # all beams are equal at first: only one is continued
        self.logprobs[places] = 0.0
        self.ended_scores[places] = LOWEST
        self.ended[places] = False
        self.ended_lengths[places] = 0
        self.hopeful[places] = True

    def choose(self, logits: torch.Tensor) -> Choice:
        texts, vocabulary = len(logits) // self.width, logits.shape[1]
        likely = torch.log_softmax(logits.float(), dim=-1)
        scores = self._penalized(likely.clone() if self.settings.scores else likely)
        totals = (scores.view(texts, self.width, -1) + self.scores[:texts, :, None]).view(texts, -1)
        best, index = totals.topk(self.candidates)  # [t, k]
        parents, tokens = index // vocabulary, index % vocabulary
        logprobs = self.logprobs[:texts].gather(1, parents)
        if self.settings.scores:
            logprobs = logprobs + likely.view(texts, -1).gather(1, index)
        ends = self.is_end[tokens] | (self.count[:texts] + 1 >= self.most[:texts])[:, None]
        going = self.hopeful[:texts] & (self.count[:texts] < self.most[:texts])
        self._end_beams(best, parents, tokens, logprobs, ends, going)
        chosen = (best + ends * LOWEST).topk(self.width)  # [t, b]
        parents, tokens = parents.gather(1, chosen.indices), tokens.gather(1, chosen.indices)
        self.scores[:texts] = chosen.values
        self.logprobs[:texts] = logprobs.gather(1, chosen.indices)
        self.tokens[:texts] = self._followed(texts, parents, tokens)
        self.count[:texts] += going
        self._look_ahead(texts)
        finished = ~self.hopeful[:texts] | (self.count[:texts] >= self.most[:texts])
        first = torch.arange(texts, device=parents.device)[:, None] * self.width
        slots = (first + parents).view(-1)
        if self.counted is not None:
            self.counted[: len(slots)] = self.counted[slots]
        self._count(tokens.view(-1))
        return Choice(tokens.view(-1), (finished,), slots)

    def take(self, texts: Sequence[Text], outcome: Tensors) -> list[Text]:
        (finished,) = outcome
        flags = finished.tolist()
        ended = [text for text in texts if flags[text.place]]
        if ended:
            places = torch.tensor([text.place for text in ended], device=self.device)
            ended_beams = (self.ended_tokens, self.ended_lengths, self.ended_logprobs)
            rows = zip(*(part[places, : self.returned].tolist() for part in ended_beams), strict=True)
            for text, (beams, lengths, logprobs) in zip(ended, rows, strict=True):
                text.written = [
                    self._written(*beam, text.request) for beam in zip(beams, lengths, logprobs, strict=True)
                ]
        return ended

    def _written(self, tokens: list[int], length: int, logprob: float, request: Request) -> WrittenTokens:
        token_ids = tokens[:length]
        if token_ids and token_ids[-1] in self.end_ids:
            token_ids.pop()
        return WrittenTokens(token_ids, logprob, length) if self.settings.scores else WrittenTokens(token_ids)

    def _end_beams(
        self,
        best: torch.Tensor,
        parents: torch.Tensor,
        tokens: torch.Tensor,
        logprobs: torch.Tensor,
        ends: torch.Tensor,
        going: torch.Tensor,
    ) -> None:
        """Add those of the best b candidates that end to the ended beams, and keep the
        best b of these."""
        texts, b = len(best), self.width
        length = self.count[:texts, None] + 1
        scores = best[:, :b] / self.divisors[length.clamp(max=self.longest)]
        fresh = ends[:, :b] & going[:, None]
        scores = torch.where(fresh, scores, scores + LOWEST)
        merged = torch.cat([self.ended_scores[:texts], scores], dim=1)
        best_ended = merged.topk(b)
        candidates = (
            fresh, self._followed(texts, parents[:, :b], tokens[:, :b]), length.expand(-1, b), logprobs[:, :b]
        )  # fmt: skip
        states = (self.ended, self.ended_tokens, self.ended_lengths, self.ended_logprobs)
        for state, candidate in zip(states, candidates, strict=True):
            both = torch.cat([state[:texts], candidate], dim=1)
            state[:texts] = _picked(both, best_ended.indices)
        self.ended_scores[:texts] = best_ended.values

    def _followed(self, texts: int, parents: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The parents' tokens, each followed by one more [t, ·, l]."""
        followed = _picked(self.tokens[:texts], parents)
        at = self.count[:texts, None, None].clamp(max=self.longest - 1).expand(*tokens.shape, 1)
        return followed.scatter(2, at, tokens[:, :, None])

    def _look_ahead(self, texts: int) -> None:
        """Note which texts can still get a better beam than those that ended."""
        length = self.count[:texts].clamp(min=1, max=self.longest)
        possible = self.scores[:texts, :1] / self.divisors[length][:, None]
        worst = self.ended_scores[:texts].amin(1, keepdim=True)
        bar = torch.where(self.ended[:texts], worst, LOWEST)
        self.hopeful[:texts] &= (possible > bar).any(1)

    def _lengthen(self, more: int) -> None:
        self.tokens, self.ended_tokens = lengthened(self.tokens, more), lengthened(self.ended_tokens, more)
        longest = self.tokens.shape[2]
        powers = [1.0, *(float(length**self.settings.length_penalty) for length in range(1, longest + 1))]
        self.divisors = torch.tensor(powers, device=self.device)

    def _state(self) -> list[torch.Tensor]:
        open_beams = [self.scores, self.tokens, self.logprobs, self.hopeful]
        ended = [self.ended_scores, self.ended, self.ended_tokens, self.ended_lengths, self.ended_logprobs]
        return [*super()._state(), *open_beams, *ended]


def _picked(states: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The states [t, n, ...] at an index [t, m]: [t, m, ...]."""
    wide = index.view(*index.shape, *[1] * (states.dim() - 2)).expand(*index.shape, *states.shape[2:])
    return states.gather(1, wide)
