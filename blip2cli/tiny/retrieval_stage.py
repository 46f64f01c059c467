"""Retrieval: ITC and ITM with hard negatives, as in the first stage of the BLIP-2 paper, on rendered scenes.

The vision tower is frozen. There are no image-grounded captions (ITG): transformers' class has no head for them.
"""

import math
import time
from collections.abc import Callable
from itertools import islice

import torch
from torch import nn
from torch.nn import functional
from transformers import Blip2ForImageTextRetrieval, PreTrainedTokenizerFast

from .heads import contrastive_scores, image_features, match_logits, text_features
from .retrieval_batches import choose_pairs, described_batches
from .schedule import descend, new_optimizer, set_rate, training_precision

IMAGES = 32
PEAK_RATE = 1e-3
_ITC_ALONE = 0.15  # share of the steps before ITM joins, whose negatives would not yet be hard
_SHARPNESS = 3  # a text that tells half of an image is an eighth as good for it as one that tells everything


class ContrastiveLoss(nn.Module):
    """ITC with soft targets: what is true of an image is no negative, and the more it tells the better it fits.

    So a query finds first the images that show what it names and nothing else, then those that show more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(math.log(0.07)))

    def logits(self, scores: torch.Tensor) -> torch.Tensor:
        """Cosines over temperature."""
        return scores.float() / self.log_temperature.clamp(math.log(0.01), math.log(0.5)).exp()

    def forward(self, scores: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        """Mean of the losses text to image and image to text, from cosines [T, B] and what the texts tell [T, B]."""
        logits, weights = self.logits(scores), told**_SHARPNESS
        true = weights.sum(dim=1) > 0
        return (_soft_cross_entropy(logits[true], weights[true]) + _soft_cross_entropy(logits.T, weights.T)) / 2


def train_retrieval(
    model: Blip2ForImageTextRetrieval,
    tokenizer: PreTrainedTokenizerFast,
    steps: int,
    seed: int,
    after_step: Callable[[int], None],
) -> None:
    """Train `model` in place but for its vision tower; `after_step` is called with the number of steps done."""
    torch.manual_seed(seed)
    model.vision_model.requires_grad_(False)
    contrast = ContrastiveLoss()
    parameters = [parameter for parameter in [*model.parameters(), *contrast.parameters()] if parameter.requires_grad]
    optimizer = new_optimizer(parameters, PEAK_RATE)
    started = time.monotonic()
    for step, batch in enumerate(islice(described_batches(tokenizer, IMAGES, seed), steps)):
        set_rate(optimizer, PEAK_RATE, step, steps)
        with training_precision():
            with torch.no_grad():
                image_embeds = model.vision_model(batch.pixel_values).last_hidden_state
            texts = text_features(model, batch.tokens)
            scores = contrastive_scores(image_features(model, image_embeds), texts).T
            loss = itc = contrast(scores, batch.told)
            if step >= _ITC_ALONE * steps:
                pairs = choose_pairs(contrast.logits(scores.detach()), batch.told)
                matches = match_logits(model, image_embeds[pairs.images], batch.tokens[pairs.texts])
                itm = functional.cross_entropy(matches.float(), pairs.match)
                loss = itc + itm
        descend(loss, optimizer)
        if step % 40 == 0 or step == steps - 1:
            parts = f"ITC {itc.item():.4f}"
            if step >= _ITC_ALONE * steps:
                right = (matches.argmax(dim=1) == pairs.match).float().mean().item()
                parts += f" ITM {itm.item():.4f} (right {100 * right:.1f} %)"
            temperature = contrast.log_temperature.exp().item()
            took = time.monotonic() - started
            print(f"retrieval {step}/{steps} {parts} temperature {temperature:.3f} {took:.0f} s", flush=True)
        after_step(step + 1)


def _soft_cross_entropy(logits: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Divergence of the softmax of each row from the row's weights: 0 where it fits them."""
    targets = weights / weights.sum(dim=1, keepdim=True)
    return functional.kl_div(logits.log_softmax(dim=1), targets, reduction="batchmean")
