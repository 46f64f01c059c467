"""Decoding steps as CUDA graphs: recorded once, replayed without launching kernels one by one."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch

Forward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Tokens [slots] and lengths [slots] to logits [slots, vocabulary], with the same shapes and memory at every call."""


class StepGraph:
    """One recorded step, over all slots whether in use or not. Not measured: no GPU was at hand.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """

    def __init__(self, slots: int, device: torch.device) -> None:
        self.tokens = torch.zeros(slots, dtype=torch.long, device=device)
        self.lengths = torch.zeros_like(self.tokens)
        self.shapes: Hashable = None

    def forget(self) -> None:
        """Drop what is recorded: its memory is no longer what the step works on."""
        self.shapes = None

    def run(
        self, forward: Forward, tokens: torch.Tensor, lengths: torch.Tensor, shapes: Hashable, spare: int
    ) -> torch.Tensor:
        """The logits of the slots in use.

        Args:
            shapes: recorded anew when it changes.
            spare: a column that no sequence has written yet, for the warm-up to write to.
        """
        n = len(tokens)
        if shapes != self.shapes:
            self.lengths.fill_(spare)
            self.record(forward)
            self.shapes = shapes
        self.tokens[:n] = tokens
        self.lengths[:n] = lengths
        self.lengths[n:] = 0
        return self.replay()[:n]

    def record(self, forward: Forward) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                forward(self.tokens, self.lengths)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.logits = forward(self.tokens, self.lengths)

    def replay(self) -> torch.Tensor:
        self.graph.replay()
        return self.logits
