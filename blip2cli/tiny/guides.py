"""Guides: small heads that help the towers learn, and are thrown away afterwards."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from .architecture import WIDTH
from .batches import label_tensor
from .examples import BACKGROUND, MAX_OBJECTS, UNKNOWN, Example


class Guides(nn.Module):
    """Linear heads: what each patch shows and its shape's place from the left, and what query k's object is."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_label = nn.Linear(WIDTH, BACKGROUND + 1)
        self.patch_rank = nn.Linear(WIDTH, MAX_OBJECTS + 1)
        self.query_object = nn.Linear(WIDTH, BACKGROUND + 1)

    def patch_loss(self, image_embeds: torch.Tensor, examples: Sequence[Example]) -> torch.Tensor:
        """Loss of labelling patches, from the vision tower's output [B, 1 + 64, WIDTH]."""
        patches = image_embeds[:, 1:]
        labels = label_tensor([example.patch_labels for example in examples])
        ranks = label_tensor([example.patch_ranks for example in examples])
        return _loss(self.patch_label(patches), labels) + _loss(self.patch_rank(patches), ranks)

    def query_loss(self, query_output: torch.Tensor, examples: Sequence[Example]) -> torch.Tensor:
        """Loss of "query k names the k-th object from the left", from the Q-Former's output [B, 8, WIDTH]."""
        objects = label_tensor([example.objects for example in examples])
        return _loss(self.query_object(query_output[:, :MAX_OBJECTS]), objects)


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=UNKNOWN)
