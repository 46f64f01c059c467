"""Batches of the retrieval stage: scenes, texts that are true or false of them, and which pairs ITM is to judge."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from .batches import pixel_tensor
from .heads import PaddedTexts, tokens_of
from .scenes import COLOURS, KINDS, random_scene, render
from .statements import false_statement, full_statement, partial_statement, told, wording

_GROUP = 8  # scenes of few colours and kinds, easily mistaken for each other: the same words, bound in other ways
_COUNTS = (1, 2, 3, 2, 3, 2, 3, 3)
_COLOURS, _KINDS = 3, 2


@dataclass(frozen=True)
class Described:
    """B scenes and 3 B texts: a full statement about each scene, then a partial one about each, then a false one."""

    pixel_values: torch.Tensor  # [B, 3, 64, 64]
    tokens: PaddedTexts  # of 3 B texts
    told: torch.Tensor  # [3 B, B], how much text t tells of image b; 0 where it is false


@dataclass(frozen=True)
class Pairs:
    """P pairs of an image and a text, by their indices, and whether they match."""

    images: torch.Tensor  # [P]
    texts: torch.Tensor  # [P]
    match: torch.Tensor  # [P], 1 or 0


def described_batches(tokenizer: PreTrainedTokenizerFast, images: int, seed: int) -> Iterator[Described]:
    """Batches of `images` scenes, a multiple of 8, for ever; batch i depends on the seed and i alone."""
    number = 0
    while True:
        rng = np.random.default_rng((seed, number))
        palettes = [_palette(rng) for _ in range(images // _GROUP)]
        scenes = [random_scene(rng, count, palette) for palette in palettes for count in _COUNTS]
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
    """Four pairs for each image: with both its true texts, with a false text, and one of them with another image.

    The false texts are near misses or hard negatives. As in the paper, hard negatives are drawn with the odds of ITC's
    `logits` [3 B, B], here among the pairs that are false.
    """
    number = told.shape[1]
    own = torch.arange(number)
    full, partial, near_misses = own, own + number, own + 2 * number
    false_texts = torch.where(torch.rand(number) < 0.5, near_misses, _draw_false(logits.T, told.T))
    asked = torch.where(torch.rand(number) < 0.5, full, partial)
    other_images = _draw_false(logits[asked], told[asked])
    images = torch.cat([own, own, own, other_images])
    texts = torch.cat([full, partial, false_texts, asked])
    return Pairs(images, texts, (told[texts, images] > 0).long())


def _draw_false(logits: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
    """A column for each row, of those where nothing true is told; any column in a row that has none."""
    odds = logits.float().masked_fill(told > 0, -1e4).softmax(dim=1)
    return torch.multinomial(odds, 1)[:, 0]


def _palette(rng: np.random.Generator) -> list[tuple[str, str]]:
    colours = rng.choice(list(COLOURS), _COLOURS, replace=False).tolist()
    kinds = rng.choice(KINDS, _KINDS, replace=False).tolist()
    return [(colour, kind) for colour in colours for kind in kinds]
