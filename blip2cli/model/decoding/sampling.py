"""From logits to the next token: penalties, then the most likely token, or one drawn at
random.

The order and meaning of the settings are those of transformers' logits processors and
warpers. A sequence's random numbers depend only on the seed and on its own position in
the input, not on what is decoded at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from blip2cli.model.decoding.language_model import LanguageModel
from blip2cli.model.decoding.requests import Request
from blip2cli.model.decoding.search import Choice, Search, Tensors, Text, lengthened
from blip2cli.model.graphs import to_device

END, FREE = -1, -2
"""Entries of a table of forced tokens: the end of the text, by any end token; and nothing
is forced."""


class Sampler(Search):
    """One sequence for each text: greedy, sampled, or forced, which shows how likely the
    given tokens are."""

    def reset(self, model: LanguageModel) -> None:
        super().reset(model)
        exact = torch.float if self.device.type == "mps" else torch.double  # MPS has no doubles
        self.uniforms = torch.zeros(self.places, 0, dtype=exact, device=self.device)
        self.forced = torch.zeros(self.places, 0, dtype=torch.long, device=self.device)

    def admit(self, requests: Sequence[Request], places: torch.Tensor, seen: Sequence[Sequence[int]]) -> None:
        super().admit(requests, places, seen)
        if self.settings.samples:
            drawn = [self._random(request).random(self.longest) for request in requests]
            self.uniforms[places] = to_device(torch.tensor(np.stack(drawn), dtype=self.uniforms.dtype), self.device)
        if self.forcing:
            forced = [[*request.forced, END] if request.forced else [] for request in requests]
            rows = [tokens + [FREE] * (self.longest - len(tokens)) for tokens in forced]
            self.forced[places] = to_device(rows, self.device)

    def choose(self, logits: torch.Tensor) -> Choice:
        n = len(logits)
        count = self.count[:n, None].clamp(max=self.longest - 1)  # unused slots may have any count
        scoring = self.settings.scores or self.forcing
        likely = torch.log_softmax(logits.float(), dim=-1) if scoring else None
        if self.counted is not None or self.settings.samples:
            logits = logits.float()
        logits = self._penalized(logits)
        tokens = self._drawn(logits, count) if self.settings.samples else logits.argmax(-1)
        written = tokens
        if self.forcing:
            forced = self.forced[:n].gather(1, count)[:, 0]
            written = torch.where(forced == FREE, tokens, forced)
            tokens = written.clamp(min=0)
        self.count[:n] += 1
        self._count(tokens)
        if likely is None:
            return Choice(tokens, (written,))
        logprobs = likely.gather(1, tokens[:, None])[:, 0]
        if self.forcing:
            logprobs = torch.where(written == END, likely[:, self.ends].logsumexp(-1), logprobs)
        return Choice(tokens, (written, logprobs))

    def take(self, texts: Sequence[Text], outcome: Tensors) -> list[Text]:
        columns = [tensor.tolist() for tensor in outcome]
        ended = []
        for text in texts:
            token, *logprob = (column[text.place] for column in columns)
            (written,) = text.written
            if logprob:
                written.logprob += logprob[0]
                written.scored += 1
            stops = token == END if text.request.forced else token in self.end_ids
            if not stops:
                written.token_ids.append(token)
            if stops or (not text.request.forced and len(written.token_ids) >= text.request.lengths[1]):
                ended.append(text)
        return ended

    def _lengthen(self, more: int) -> None:
        if self.settings.samples:
            self.uniforms = lengthened(self.uniforms, more)
        if self.forcing:
            self.forced = lengthened(self.forced, self.longest + more - self.forced.shape[1], FREE)

    def _state(self) -> list[torch.Tensor]:
        return [*super()._state(), self.uniforms, self.forced]

    def _random(self, request: Request) -> np.random.Generator:
        """The random numbers of one sequence."""
        return np.random.default_rng([self.settings.seed, *request.draw])

    def _drawn(self, logits: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        """Inverse-transform sampling from the nucleus of each row, the most likely token
        first."""
        scores, tokens = torch.sort(logits / (self.settings.temperature or 1.0), dim=-1, descending=True, stable=True)
        mass = torch.cumsum(scores.to(self.uniforms.dtype).softmax(-1), dim=-1)
        top = 1.0 if self.settings.top_p is None else self.settings.top_p
        inside = torch.searchsorted(mass, torch.full_like(mass[:, :1], top)).clamp(max=mass.shape[1] - 1)
        targets = self.uniforms[: len(logits)].gather(1, count) * mass.gather(1, inside)
        picked = torch.minimum(torch.searchsorted(mass, targets, right=True), inside)
        return tokens.gather(1, picked)[:, 0]
