"""How well images and texts find each other: recall among distinct scenes, and ITM's verdicts on texts."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from transformers import Blip2ForImageTextRetrieval, PreTrainedTokenizerFast

from .batches import pixel_tensor
from .heads import PaddedTexts, contrastive_scores, image_features, match_logits, text_features, tokens_of
from .phrases import scene_caption
from .scenes import Scene, render, scene_stream
from .statements import Statement, false_statement, partial_statement, told, wording

_BATCH = 128
_RERANKED = 32

Figures = dict[str, list[bool]]
"""For each figure, whether each item was right."""


@dataclass(frozen=True)
class Gallery:
    """Scenes of which no two show the same shapes; of each its caption, and a partial and a false statement."""

    scenes: list[Scene]
    captions: list[str]
    partial: list[Statement]
    partial_texts: list[str]
    false_texts: list[str]


def gallery(seed: int, number: int) -> Gallery:
    """The first `number` scenes of the seed that show other shapes than those before."""
    distinct: dict[tuple[int, ...], Scene] = {}
    for scene in scene_stream(seed):
        if len(distinct) == number:
            break
        distinct.setdefault(tuple(sorted(shape.label for shape in scene.shapes)), scene)
    rng = np.random.default_rng(seed)
    scenes = list(distinct.values())
    partial = [partial_statement(scene, rng) for scene in scenes]
    return Gallery(
        scenes,
        [scene_caption(scene) for scene in scenes],
        partial,
        [wording(statement, rng) for statement in partial],
        [wording(false_statement(scene, rng), rng) for scene in scenes],
    )


@torch.inference_mode()
def retrieval_figures(model: Blip2ForImageTextRetrieval, tokenizer: PreTrainedTokenizerFast, data: Gallery) -> Figures:
    """Recall among images and captions, what partial statements find first, and ITM's verdicts."""
    pixels = pixel_tensor([np.asarray(render(scene)) for scene in data.scenes])
    image_embeds = torch.cat([model.vision_model(part).last_hidden_state for part in pixels.split(_BATCH)])
    features = image_features(model, image_embeds)
    captions, partial, false = (
        tokens_of(texts, tokenizer) for texts in (data.captions, data.partial_texts, data.false_texts)
    )

    def matches(images: torch.Tensor, texts: torch.Tensor, tokens: PaddedTexts = captions) -> torch.Tensor:
        parts = zip(images.split(_BATCH), texts.split(_BATCH), strict=True)
        logits = torch.cat([match_logits(model, image_embeds[image], tokens[text]) for image, text in parts])
        return logits.softmax(dim=1)[:, 1]

    scores = contrastive_scores(features, text_features(model, captions))
    by_text, by_both = _reranked(scores.T, lambda texts, images: matches(images, texts))
    _, of_image = _reranked(scores, matches)
    first = contrastive_scores(features, text_features(model, partial)).argmax(dim=0)
    own = torch.arange(len(data.scenes))
    return {
        **_recall("text to image, ITC", scores.T),
        **_recall(f"text to image, first {_RERANKED} by ITM", by_text),
        **_recall(f"text to image, first {_RERANKED} by ITC + ITM", by_both),
        **_recall("image to text, ITC", scores),
        **_recall(f"image to text, first {_RERANKED} by ITC + ITM", of_image),
        "partial statements: true of the first image, ITC": _true(data, first),
        "ITM, captions": (matches(own, own) > 0.5).tolist(),
        "ITM, partial statements": (matches(own, own, partial) > 0.5).tolist(),
        "ITM, false statements": (matches(own, own, false) < 0.5).tolist(),
    }


def per_cent(figures: Figures) -> str:
    """One line for the training log."""
    return "; ".join(f"{name}: {100 * sum(right) / len(right):.1f}" for name, right in figures.items())


def _reranked(
    scores: torch.Tensor, matches: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores in which each row's best come first: in the order of ITM's probability, and of cosine plus probability."""
    best = scores.topk(min(_RERANKED, scores.shape[1]), dim=1).indices
    rows = torch.arange(len(scores))[:, None].expand_as(best)
    probabilities = matches(rows.flatten(), best.flatten()).view_as(best)
    behind = scores - 10
    return behind.scatter(1, best, probabilities), behind.scatter(1, best, scores.gather(1, best) + probabilities)


def _recall(name: str, scores: torch.Tensor) -> Figures:
    """Whether item i is the first of row i, and whether it is among the first five."""
    own = torch.arange(len(scores))[:, None]
    hits = {first: scores.topk(first, dim=1).indices == own for first in (1, 5)}
    return {f"{name}, R@{first}": hit.any(dim=1).tolist() for first, hit in hits.items()}


def _true(data: Gallery, images: torch.Tensor) -> list[bool]:
    """Whether each partial statement is true of the image given for it."""
    own = np.arange(len(data.scenes))
    truths: list[bool] = (told(data.partial, data.scenes)[own, images.numpy()] > 0).tolist()
    return truths
