"""Upper bounds of cosines from a few numbers of each vector, so that most pairs are never compared in full.

A unit vector is turned into a basis in which its first numbers tell most (the principal components of the vectors
themselves). It is shortened to these, with the length of the rest behind them: x = (a, |rest|). By the inequality of
Cauchy and Schwarz the product of two shortened vectors is never below the product of the vectors. The shortened ones
are in bf16, whose rounding MARGIN allows for, so no pair is missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LENGTHS = (64, 128)
"""Numbers of a shortened vector that are tried; without them all numbers are used."""

MARGIN = 0.0065
"""How far a product in bf16 can be below the true one: a part in 2⁹ for either vector, and one for the product."""

FULL_COMPARISON = 1000
"""What comparing a pair in full costs, by what a product of 64 numbers does in a large matrix product."""


@dataclass(frozen=True)
class Shortening:
    """How vectors are shortened. `basis` is fp32 [width, length - 1]; None if they are only rounded."""

    basis: torch.Tensor | None
    length: int

    @staticmethod
    def of(sample: torch.Tensor, threshold: float) -> Shortening:
        """The one with the least work, judged by the pairs of a sample of unit vectors fp32 [rows, width]."""
        import torch

        rows, width = sample.shape
        choices = [Shortening(None, width)]
        if rows > 1:
            _, axes = torch.linalg.eigh((sample.T @ sample).double())
            basis = axes.flip(1).float()  # the largest eigenvalues come last
            choices += [Shortening(basis[:, : length - 1].contiguous(), length) for length in LENGTHS if length < width]
        return min(choices, key=lambda choice: choice.work(sample, threshold))

    def work(self, sample: torch.Tensor, threshold: float) -> float:
        """The work of a comparison on average, by that of a product of 64 numbers."""
        short = self.short(sample)
        pairs = max(len(sample) * (len(sample) - 1), 1)
        left = int(((short @ short.T) >= threshold - MARGIN).sum()) - len(sample)
        return self.length / 64 + FULL_COMPARISON * max(left, 0) / pairs

    def short(self, vectors: torch.Tensor) -> torch.Tensor:
        """Unit vectors fp32 [rows, width], shortened to bf16 [rows, length]."""
        import torch

        if self.basis is None:
            return vectors.bfloat16()
        first = vectors @ self.basis
        rest = (1 - first.square().sum(1, keepdim=True)).clamp(min=0).sqrt()
        return torch.cat([first, rest], 1).bfloat16()
