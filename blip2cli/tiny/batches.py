"""Batches: examples packed into tensors. All turns about an image share its query embeddings in one sequence."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from .architecture import CLIP_MEAN, CLIP_STD, NUM_QUERIES
from .examples import UNKNOWN, Example, Turn


@dataclass(frozen=True)
class Packed:
    """Language-model inputs of B images, T text positions each.

    A turn sees the queries and itself, and its positions go on from the queries, which is what
    [query embeddings][left pads][BOS + prompt] gives it when it is generated alone.
    """

    input_ids: torch.Tensor  # [B, T]
    labels: torch.Tensor  # [B, T], UNKNOWN where nothing is to be learned
    position_ids: torch.Tensor  # [B, NUM_QUERIES + T]
    attention_mask: torch.Tensor  # [B, 1, NUM_QUERIES + T, NUM_QUERIES + T], bool


def pixel_tensor(images: Sequence[np.ndarray]) -> torch.Tensor:
    """Normalised pixels [B, 3, 64, 64] in fp32, of uint8 images [64, 64, 3]."""
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (pixels.float() / 255 - mean) / std


def label_tensor(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    """Stack equal arrays of labels into one int64 tensor."""
    return torch.from_numpy(np.stack(arrays)).long()


class Packer:
    """Turns text into packed sequences; remembers what it has tokenized."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._tokens = lru_cache(maxsize=100_000)(self._tokenize)

    def pack(self, examples: Sequence[Example]) -> Packed:
        """Pack every turn of every example."""
        rows = [[self._tokens(turn) for turn in example.turns] for example in examples]
        length = max(sum(len(ids) for ids, _ in row) for row in rows)
        shape = (len(rows), length)
        input_ids = np.full(shape, self._tokenizer.pad_token_id)
        labels, turns = np.full(shape, UNKNOWN), np.full(shape, -1)
        positions = np.full(shape, NUM_QUERIES)
        for index, row in enumerate(rows):
            start = 0
            for number, (ids, wanted) in enumerate(row):
                place = slice(start, start := start + len(ids))
                input_ids[index, place], labels[index, place], turns[index, place] = ids, wanted, number
                positions[index, place] = np.arange(NUM_QUERIES, NUM_QUERIES + len(ids))
        queries = np.broadcast_to(np.arange(NUM_QUERIES), (len(rows), NUM_QUERIES))
        return Packed(
            torch.from_numpy(input_ids),
            torch.from_numpy(labels),
            torch.from_numpy(np.concatenate([queries, positions], axis=1)),
            _mask(torch.from_numpy(turns)),
        )

    def _tokenize(self, turn: Turn) -> tuple[list[int], list[int]]:
        prompt = self._tokenizer(turn.prompt).input_ids
        target = [*self._tokenizer(turn.target, add_special_tokens=False).input_ids, self._tokenizer.eos_token_id]
        return prompt + target[:-1], [UNKNOWN] * (len(prompt) - 1) + target


def _mask(turns: torch.Tensor) -> torch.Tensor:
    batch, length = turns.shape
    total = NUM_QUERIES + length
    allowed = torch.zeros(batch, total, total, dtype=torch.bool)
    allowed[:, :, :NUM_QUERIES] = True
    allowed[:, NUM_QUERIES:, NUM_QUERIES:] = turns[:, :, None] == turns[:, None, :]
    return (allowed & torch.ones(total, total, dtype=torch.bool).tril())[:, None]
