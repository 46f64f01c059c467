"""Batches of the retrieval stage: scenes, texts that are true or false of them, and which pairs ITM is to judge."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from .batches import pixel_tensor
from .heads import Tokens, tokens_of
from .scenes import LABELS, random_scene, render
from .statements import false_statement, full_statement, partial_statement, told, wording

_COUNTS = (1, 2, 3, 2, 3)
_PALETTE = 6  # labels that every second batch keeps to, so that its scenes are easily mistaken for each other


@dataclass(frozen=True)
class Described:
    """B scenes and 3 B texts: a full statement about each scene, then a partial one about each, then a false one."""

    pixel_values: torch.Tensor  # [B, 3, 64, 64]
    tokens: Tokens  # of 3 B texts
    told: torch.Tensor  # [3 B, B], how much text t tells of image b; 0 where it is false


@dataclass(frozen=True)
class Pairs:
    """P pairs of an image and a text, by their indices, and whether they match."""

    images: torch.Tensor  # [P]
    texts: torch.Tensor  # [P]
    match: torch.Tensor  # [P], 1 or 0


def described_batches(tokenizer: PreTrainedTokenizerFast, images: int, seed: int) -> Iterator[Described]:
    """Batches for ever, no scene drawn twice; batch i depends on the seed and i alone."""
    number = 0
    while True:
        rng = np.random.default_rng((seed, number))
        palette = LABELS if number % 2 else [LABELS[int(index)] for index in rng.permutation(len(LABELS))[:_PALETTE]]
        scenes = [random_scene(rng, _COUNTS[index % len(_COUNTS)], palette) for index in range(images)]
        statements = [full_statement(scene) for scene in scenes]
        statements += [partial_statement(scene, rng) for scene in scenes]
        statements += [false_statement(scene, rng) for scene in scenes]
        yield Described(
            pixel_tensor([np.asarray(render(scene)) for scene in scenes]),
            tokens_of([wording(statement, rng) for statement in statements], tokenizer),
            torch.from_numpy(told(statements, scenes)).float(),
        )
        number += 1


def choose_pairs(logits: torch.Tensor, told: torch.Tensor) -> Pairs:
    """Three pairs for each image: one true, one of an image and a false text, one of a true text and another image.

    The false texts are near misses or hard negatives. As in the paper, hard negatives are drawn with the odds of ITC's
    `logits` [3 B, B], here among the pairs that are false.
    """
    number = told.shape[1]
    own = torch.arange(number)
    true_texts = own + number * torch.randint(2, (number,))
    near_misses = torch.rand(number) < 0.5
    false_texts = torch.where(near_misses, own + 2 * number, _draw_false(logits.T, told.T))
    other_images = _draw_false(logits[true_texts], told[true_texts])
    images = torch.cat([own, own, other_images])
    texts = torch.cat([true_texts, false_texts, true_texts])
    return Pairs(images, texts, (told[texts, images] > 0).long())


def _draw_false(logits: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
    """A column for each row, of those where nothing true is told; any column in a row that has none."""
    odds = logits.float().masked_fill(told > 0, -1e4).softmax(dim=1)
    return torch.multinomial(odds, 1)[:, 0]
