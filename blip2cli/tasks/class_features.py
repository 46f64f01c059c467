"""Classes as the model sees them: features of their texts, and which class fits an image best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.nn import functional as F

from blip2cli.errors import UsageError
from blip2cli.model.batches import Failed
from blip2cli.model.retrieval import ReadText, RetrievalModel, SeenImage
from blip2cli.records import RowError
from blip2cli.tasks.classes import check_different, class_texts
from blip2cli.tasks.template import Template

CLASSES_AT_ONCE = 1024
"""Classes whose texts are encoded together, which bounds memory."""

NOT_FINITE = Failed(RowError("failed", "the ITC score is not finite"))

T = TypeVar("T")

BestClasses = list[tuple[int, float]]
"""The best classes of an image, each with its probability, best first."""


@dataclass(frozen=True, eq=False)
class ClassFeatures:
    """The classes, encoded by a model.

    Args:
        model: the model.
        texts: the texts of each class, one for each template.
        vectors: fp32 [classes, projection width]: of each class the mean of its texts' features, normalised.
    """

    model: RetrievalModel
    texts: Sequence[Sequence[str]]
    vectors: torch.Tensor

    def ranked(self, images: Sequence[torch.Tensor], most: int, temperature: float) -> list[BestClasses | Failed]:
        """The best `most` classes of each image by ITC.

        The probability is a softmax over all classes of ITC's similarities, divided by the temperature.

        Args:
            images: features of each, fp32 [num_query_tokens, projection width], normalised.
            most: classes of each ranking.
            temperature: above 0.
        """
        similarities = self.model.similarities(images, self.vectors)
        return [_best(each, most, temperature) for each in similarities]

    def reranked(
        self, images: Sequence[SeenImage], candidates: Sequence[BestClasses | Failed]
    ) -> list[BestClasses | Failed]:
        """The candidates of each image in the order of ITM.

        The probability is a softmax over an image's candidates of the log-odds of a match, averaged over a class's
        texts: that of each class if exactly one of them is right.
        """
        pairs: list[tuple[SeenImage, ReadText]] = []
        for image, ranking in zip(images, candidates, strict=True):
            pairs += [(image, text) for text in self._read(ranking)]
        logits = iter(self.model.itm_logits(pairs))
        return [each if isinstance(each, Failed) else self._by_itm(each, logits) for each in candidates]

    def _read(self, ranking: BestClasses | Failed) -> list[ReadText]:
        """The texts of the candidates, which the model could read before."""
        if isinstance(ranking, Failed):
            return []
        read = self.model.read([text for number, _ in ranking for text in self.texts[number]])
        return [text for text in read if not isinstance(text, Failed)]

    def _by_itm(self, ranking: BestClasses, logits: Iterator[tuple[float, float] | Failed]) -> BestClasses | Failed:
        """A ranking with the next logits, which are those of its texts."""
        log_odds = []
        failed = None
        for number, _ in ranking:
            of_class = [next(logits) for _ in self.texts[number]]
            failed = failed or next((each for each in of_class if isinstance(each, Failed)), None)
            differences = [each[1] - each[0] for each in of_class if not isinstance(each, Failed)]
            log_odds.append(sum(differences) / max(len(differences), 1))
        if failed is not None:
            return failed
        shares = torch.tensor(log_odds, dtype=torch.float64).softmax(dim=0).tolist()
        best_first = sorted(range(len(ranking)), key=lambda at: -shares[at])
        return [(ranking[at][0], shares[at]) for at in best_first]


def encode_classes(model: RetrievalModel, names: Sequence[str], templates: Sequence[Template]) -> ClassFeatures:
    """The features of classes.

    Raises UsageError for a text that is too long, and for two classes that are the same to the model.
    """
    texts = [class_texts(name, templates) for name in names]
    blocks, first_ids = [], []
    for at in range(0, len(texts), CLASSES_AT_ONCE):
        block = texts[at : at + CLASSES_AT_ONCE]
        flat = [text for of_class in block for text in of_class]
        read = _all_good(flat, model.read(flat))
        first_ids += [text.ids for text in read[:: len(block[0])]]
        projections = _all_good(flat, model.projections(read))
        features = torch.stack(projections).view(len(block), len(block[0]), -1)
        blocks.append(F.normalize(features.mean(dim=1), dim=-1))
    check_different(names, first_ids)
    return ClassFeatures(model, texts, torch.cat(blocks))


def _all_good(texts: Sequence[str], computed: Sequence[T | Failed]) -> list[T]:
    """What was computed of the texts. Raises UsageError for the first that failed."""
    good = []
    for text, each in zip(texts, computed, strict=True):
        if isinstance(each, Failed):
            shown = text if len(text) <= 60 else f"{text[:57]}..."
            too_long = each.error.kind == "text-too-long"
            shorten = "Shorten it: texts of classes are not cut off."
            hint = shorten if too_long else "Leave this class out, or rename it."
            raise UsageError(f"class text {shown!r}: {each.error}", hint)
        good.append(each)
    return good


def _best(similarities: torch.Tensor, most: int, temperature: float) -> BestClasses | Failed:
    """The best classes of one image [classes]; of equals the first."""
    if not similarities.isfinite().all():
        return NOT_FINITE
    shares = (similarities.double() / temperature).softmax(dim=0)
    numbers = similarities.argsort(descending=True, stable=True)[:most]
    return list(zip(numbers.tolist(), shares[numbers].tolist(), strict=True))
