"""`LanguageModel`, the interface that the loop uses: sequences in slots, a step for all
of them, and moving them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from blip2cli.model.decoding.cache import SlotCache
from blip2cli.model.decoding.requests import Request
from blip2cli.model.graphs import Runner

CHUNKS = 8
"""If shapes are fixed, one slot in this many is filled at once: as many as a batch has
images."""

PROMPT_GRANULE = 8
"""If shapes are fixed, prompts are padded to a multiple of this many tokens."""

Placed = tuple[Request, int]
"""A request and the slot that its sequence is in."""


class LanguageModel(ABC):
    """A language model that decodes up to `slots` sequences of different lengths
    together.

    A sequence stays in its slot until it is copied to another. The first of the `caches`
    gets one column a step. Layers may be on several devices: inputs of functions inside
    them are moved here, all others by `placement.move_inputs_of_parts`.

    Args:
        devices: of each layer.
        heads: of attention.
        width: of a head.
        like: a weight on the first device, in the dtype of keys and values.
        caches: how many key/value caches there are.
        vocabulary: how many logits there are.
        runner: runs what is done on the device.
    """

    start_column = 0
    """The first column that sequences of one image may differ in."""

    used = 0
    """Columns that any sequence has; what is behind them is never copied."""

    def __init__(
        self,
        devices: Sequence[torch.device],
        heads: int,
        width: int,
        like: torch.Tensor,
        caches: int,
        vocabulary: int,
        runner: Runner,
    ) -> None:
        self.devices, self.heads, self.width = devices, heads, width
        self.like = like
        self.vocabulary = vocabulary
        self.runner = runner
        self.slots = 0
        self.caches: tuple[SlotCache, ...] = (SlotCache(devices, 0, heads, width, like),) * caches

    @staticmethod
    @abstractmethod
    def forced_logits(
        language_model: Any, query_embeds: torch.Tensor, prompt_ids: Sequence[int], text_ids: Sequence[int]
    ) -> torch.Tensor:
        """Logits [text, vocabulary] for each token of a text that is given, in one pass
        through transformers' own language model, which has gradients.

        Args:
            language_model: that of transformers.
            query_embeds: [1, num_query_tokens, language width].
            prompt_ids: as in a Request.
            text_ids: the text's, at least one.
        """

    @abstractmethod
    def start(self, request: Request) -> tuple[int, int]:
        """A request's first token to be fed, and the columns that its sequence has by
        then."""

    @abstractmethod
    def seen(self, request: Request) -> tuple[int, ...]:
        """The token ids that a repetition penalty counts from the start."""

    @abstractmethod
    def room(self, requests: Sequence[Request]) -> tuple[int, ...]:
        """The columns that each cache needs for the whole of the requests' texts."""

    @abstractmethod
    def admit(self, requests: Sequence[Request], slots: Sequence[int]) -> None:
        """Put the image and the prompt of each request into its slot, which is cleared
        first."""

    @abstractmethod
    def step_in(self, slots: slice, tokens: torch.Tensor) -> torch.Tensor:
        """Continue the sequences in n slots by tokens [n]; returns logits [n,
        vocabulary] for the next."""

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """The same for the first n slots."""
        return self.step_in(slice(len(tokens)), tokens)

    @property
    def device(self) -> torch.device:
        """The device of tokens and logits."""
        return self.like.device

    @property
    def cache(self) -> SlotCache:
        """The cache that grows by a column a step."""
        return self.caches[0]

    def reset(self, slots: int) -> None:
        """Forget all sequences, and have room for `slots` of them from now on."""
        self.runner.forget()
        self.slots = slots
        self.caches = tuple(SlotCache(self.devices, slots, self.heads, self.width, self.like) for _ in self.caches)
        self.rows = torch.arange(slots, device=self.device)

    def fits(self, requests: Sequence[Request]) -> bool:
        """Whether the caches have room for the requests' whole texts."""
        needed = zip(self.caches, self.room(requests), strict=True)
        return all(columns <= cache.columns for cache, columns in needed)

    def grow(self, requests: Sequence[Request]) -> None:
        """Make room for the requests' whole texts, while there is no sequence in any
        slot."""
        self.runner.forget()
        for cache, columns in zip(self.caches, self.room(requests), strict=True):
            cache.reserve(columns, keep=False)

    def reserve(self, columns: int) -> None:
        """Make room for sequences of that many columns."""
        self.used = columns
        self.cache.reserve(columns)

    def copy(self, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copy whole sequences from slots [n] to other slots [n]."""
        used = self.cache.columns if self.runner.fixed else self.used
        self.cache.copy(sources, targets, slice(0, used))
        if used < self.cache.columns:
            self.cache.clear(targets, used)
        for cache in self.caches[1:]:
            cache.copy(sources, targets)

    def reorder(self, parents: torch.Tensor) -> None:
        """Replace the sequence of each of the first n slots by that of its parent [n],
        which has the same beginning."""
        slots = self.rows[: len(parents)]
        columns = slice(self.start_column, self.cache.columns)
        if not self.runner.fixed:
            changed = parents != slots
            parents, slots = parents[changed], slots[changed]
            columns = slice(self.start_column, self.used)
        self.cache.copy(parents, slots, columns)

    def _together(self, items: int) -> int:
        """How many of so many items are read at once: all, or if shapes are fixed, always
        the same number."""
        return max(1, self.slots // CHUNKS) if self.runner.fixed else max(1, items)

    def _chunks(self, placed: Sequence[Placed]) -> Iterator[list[Placed]]:
        """The requests that are read at once: all, or if shapes are fixed, chunks filled
        up by repeating the last."""
        size = self._together(len(placed))
        for at in range(0, len(placed), size):
            chunk = list(placed[at : at + size])
            yield chunk + chunk[-1:] * (size - len(chunk)) if self.runner.fixed else chunk

    def _padded(self, prompts: Sequence[tuple[int, ...]]) -> list[list[int]]:
        """Token ids as long as the longest prompt."""
        longest = self._padded_length(max(map(len, prompts)))
        return [[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts]

    def _padded_length(self, longest: int) -> int:
        return -(-longest // PROMPT_GRANULE) * PROMPT_GRANULE if self.runner.fixed else longest

    def _split(self, states: torch.Tensor) -> torch.Tensor:
        """[n, length, heads × head width] to [n, heads, length, head width]."""
        n, length, _ = states.shape
        return states.view(n, length, self.heads, self.width).transpose(1, 2)
