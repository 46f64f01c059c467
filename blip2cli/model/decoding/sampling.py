"""Logits to the next token: penalties, then the largest, or one drawn at random.

The order and meaning of the settings are those of transformers' logits processors and warpers. A sequence's random
numbers depend on the seed and on its own place in the input only, not on what is decoded beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from blip2cli.model.decoding.requests import Request
from blip2cli.settings import GenerationSettings


@dataclass(frozen=True)
class Sampler:
    """Chooses tokens as the settings say; `end_ids` are the tokens that end a text."""

    settings: GenerationSettings
    end_ids: tuple[int, ...]

    def random(self, request: Request) -> np.random.Generator | None:
        """The random numbers of one sequence; None where nothing is drawn."""
        if not self.settings.samples:
            return None
        return np.random.default_rng([self.settings.seed, *request.draw])

    def choose(
        self,
        logits: torch.Tensor,
        seen: torch.Tensor | None,
        unfinished: Sequence[int],
        randoms: Sequence[np.random.Generator | None],
    ) -> list[int]:
        """The next token of each sequence.

        Args:
            logits: [sequences, vocabulary].
            seen: boolean, the same shape: the tokens a repetition penalty counts; None without one.
            unfinished: the rows that may not end yet.
            randoms: each row's random numbers.
        """
        penalty = self.settings.repetition_penalty
        if seen is not None or unfinished or self.settings.samples:
            logits = logits.float()
        if seen is not None:
            logits = torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)
        if unfinished and self.end_ids:
            rows = torch.tensor(list(unfinished), device=logits.device)
            for end in self.end_ids:
                logits[rows, end] = float("-inf")
        if not self.settings.samples:
            chosen: list[int] = logits.argmax(-1).tolist()
            return chosen
        return self._draw(logits, [float(random.random()) for random in randoms if random is not None])

    def _draw(self, logits: torch.Tensor, uniforms: list[float]) -> list[int]:
        """Inverse-transform sampling from the nucleus of each row, likeliest token first."""
        scores, tokens = torch.sort(logits / (self.settings.temperature or 1.0), dim=-1, descending=True, stable=True)
        mass = torch.cumsum(scores.double().softmax(-1), dim=-1)
        top = 1.0 if self.settings.top_p is None else self.settings.top_p
        inside = torch.searchsorted(mass, torch.full_like(mass[:, :1], top)).clamp(max=mass.shape[1] - 1)
        targets = torch.tensor(uniforms, dtype=mass.dtype, device=mass.device)[:, None] * mass.gather(1, inside)
        picked = torch.minimum(torch.searchsorted(mass, targets, right=True), inside)
        chosen: list[int] = tokens.gather(1, picked)[:, 0].tolist()
        return chosen
