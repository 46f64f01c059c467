"""Where the model looked: maps of an image, made of the Q-Former's attention to its patches and of gradients.

A map is Grad-CAM as LAVIS computes it for BLIP (`compute_gradcam` in `lavis/models/blip_models/
blip_image_text_matching.py`): attention times its gradient where that is positive, averaged over heads and tokens. In
BLIP-2 only the query tokens attend to the image, so that the average is over these; and the maps of all layers with
cross-attention are added, where LAVIS takes those of one layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

SMALLEST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True)
class Explanation:
    """The map of a text, and of each of its words if they were asked for.

    Maps are fp32 on the CPU, from 0 to 1, [rows, columns] of patches; `word_maps` are [words, rows, columns].
    """

    map: torch.Tensor
    words: tuple[str, ...]
    word_maps: torch.Tensor

    @classmethod
    def of(cls, maps: torch.Tensor, words: Sequence[str]) -> Explanation:
        """That of a text's map and its words', [1 + words, rows, columns]. Raises ValueError if they are not finite."""
        if not bool(torch.isfinite(maps).all()):
            raise ValueError("the map is not finite")
        return cls(maps[0], tuple(words), maps[1:])


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text, and the positions of its tokens."""

    text: str
    tokens: tuple[int, ...]


def words_of(token_ids: Sequence[int], text_of: Callable[[Sequence[int]], str]) -> list[Word]:
    """The words of a text, which spaces separate; tokens without text, such as those that begin it, are in none.

    Args:
        token_ids: the text's.
        text_of: decodes tokens, without special ones.
    """
    tokens: dict[int, list[int]] = {}
    before = ""
    for at in range(len(token_ids)):
        so_far = text_of(token_ids[: at + 1])
        if so_far != before and so_far.split():
            tokens.setdefault(len(so_far.split()) - 1, []).append(at)
        before = so_far
    words = before.split()
    return [Word(words[number], tuple(places)) for number, places in tokens.items() if number < len(words)]


@contextmanager
def recorded_attention(qformer: Any) -> Iterator[list[torch.Tensor]]:
    """The cross-attention that the Q-Former computes inside, of each layer that has it.

    They are [n, heads, num_query_tokens, patches + 1], and what is computed from them can be differentiated by them.
    """
    attentions: list[torch.Tensor] = []

    def record(module: Any, inputs: Any, outputs: tuple[Any, torch.Tensor]) -> None:
        attentions.append(outputs[1])

    layers = [layer for layer in qformer.encoder.layer if layer.has_cross_attention]
    hooks = [layer.crossattention.attention.register_forward_hook(record) for layer in layers]
    usual = qformer.config._attn_implementation
    qformer.set_attn_implementation("eager")  # the others give no attention
    try:
        yield attentions
    finally:
        qformer.set_attn_implementation(usual)
        for hook in hooks:
            hook.remove()


def maps_of(score: torch.Tensor, attentions: Sequence[torch.Tensor], keep: bool = False) -> torch.Tensor:
    """Maps fp32 [n, rows, columns] on the CPU, from 0 to 1: what of the attention raised a score.

    Args:
        score: the sum of the scores of n texts.
        attentions: as `recorded_attention` gives them.
        keep: whether another score of the same pass follows.
    """
    gradients = torch.autograd.grad(score, attentions, retain_graph=keep)
    total: Any = 0.0
    for attention, gradient in zip(attentions, gradients, strict=True):
        looked = attention.detach().float() * gradient.float().clamp(min=0)
        total = total + looked.mean(dim=(1, 2))  # of heads, and of query tokens
    patches = total[:, 1:].cpu()  # the first is not a patch, but stands for the whole image
    scaled = patches / patches.amax(dim=1, keepdim=True).clamp(min=SMALLEST)
    side = round(scaled.shape[1] ** 0.5)
    return scaled.view(len(scaled), side, -1)
