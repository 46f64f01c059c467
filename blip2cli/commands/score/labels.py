"""Labels of images: accuracy, F1 and what is confused with what. A label is right if it is exactly the reference's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from blip2cli.commands.score.predictions import LABELS, Predictions
from blip2cli.commands.score.records import Figure, Pair, Prediction, Reference
from blip2cli.commands.score.tables import texts_in
from blip2cli.errors import UsageError

METRICS = ("accuracy", "macro_f1", "top_k_accuracy")


@dataclass(frozen=True)
class Confusion:
    """How often each label was given for each true one; None stands for results without a label.

    Args:
        counts: by (true label, label given).
    """

    counts: Counter[tuple[str, str | None]]

    @property
    def labels(self) -> list[str]:
        """All labels, true or given, in order."""
        return sorted({label for pair in self.counts for label in pair if label is not None})

    @property
    def true(self) -> Counter[str]:
        """How often each label was true."""
        return _summed((true, count) for (true, _), count in self.counts.items())

    @property
    def given(self) -> Counter[str]:
        """How often each label was given."""
        return _summed((given, count) for (_, given), count in self.counts.items() if given is not None)

    def f1(self, label: str, true: int, given: int) -> float:
        """F1 of a label that is so often true and given: 2 TP / (2 TP + FP + FN)."""
        return 2 * self.counts[label, label] / (true + given)

    def macro_f1(self) -> float:
        """The mean of F1 over all labels that are true or given somewhere, as scikit-learn has it."""
        true, given, labels = self.true, self.given, self.labels
        return sum(self.f1(label, true[label], given[label]) for label in labels) / len(labels)

    def confused(self) -> list[tuple[str, str | None, int]]:
        """The wrong labels: the true one, the one given, and how often, the most frequent first."""
        wrong = [(true, given, count) for (true, given), count in self.counts.items() if true != given]
        return sorted(wrong, key=lambda entry: (-entry[2], entry[0], entry[1] or ""))


def confusion_of(pairs: Sequence[Pair]) -> Confusion:
    """What was confused in pairs."""
    return Confusion(Counter(_true_and_given(pair) for pair in pairs))


class LabelMetrics:
    """Measures labels. Without `asked` it gives every metric that the results allow."""

    def __init__(self, pairs: Sequence[Pair], asked: Sequence[str] | None) -> None:
        self.left_out: dict[str, str] = {}
        self.names = [name for name in METRICS if asked is None or name in asked]
        self.best = max((len(_labels(pair.prediction)) for pair in pairs), default=0)
        if self.best < 2 and "top_k_accuracy" in self.names:
            if asked is not None:
                raise UsageError(
                    f"top_k_accuracy needs the column {LABELS}, which the results do not have",
                    "Write it with: blip2 classify --top 5",
                )
            self.names.remove("top_k_accuracy")

    def measure(self, pairs: Sequence[Pair]) -> dict[str, Figure]:
        """A figure for each metric; what carries an error is wrong. F1 is of all pairs together."""
        figures: dict[str, Figure] = {}
        if "accuracy" in self.names:
            figures["accuracy"] = _share([_is_right(pair) for pair in pairs])
        if "macro_f1" in self.names:
            figures["macro_f1"] = Figure(100 * confusion_of(pairs).macro_f1(), [math.nan] * len(pairs))
        if "top_k_accuracy" in self.names:
            among = [not set(_labels(pair.prediction)).isdisjoint(_texts(pair.reference)) for pair in pairs]
            figures[f"top_{self.best}_accuracy"] = _share(among)
        return figures


def own_references(predictions: Predictions, column: str) -> tuple[list[Pair], int]:
    """Each result with the label that its own row has in a column, and how many rows have none there.

    Raises UsageError if no row has one.
    """
    pairs = []
    for number, prediction in enumerate(predictions.rows):
        texts = tuple(texts_in(prediction.columns.get(column)))
        if any(text.strip() for text in texts):
            key = str(prediction.columns.get("image", number))
            pairs.append(Pair(key, prediction, Reference(texts, prediction.columns)))
    if not pairs:
        raise UsageError(
            f"no result has a label in column {column}" if predictions.rows else "there are no results",
            "--label-column names the column of the results with the true labels; or give --references FILE.",
        )
    return pairs, len(predictions.rows) - len(pairs)


def _true_and_given(pair: Pair) -> tuple[str, str | None]:
    """The true label and the one given; of several that are true, the one given, else the first."""
    if pair.prediction.error is not None:
        return _texts(pair.reference)[0], None
    given = pair.prediction.text.strip()
    return (given if _is_right(pair) else _texts(pair.reference)[0]), given


def _is_right(pair: Pair) -> bool:
    return pair.prediction.error is None and pair.prediction.text.strip() in _texts(pair.reference)


def _texts(reference: Reference) -> list[str]:
    """The true labels; blank entries of a list are none, unless there are no others."""
    texts = [text.strip() for text in reference.texts]
    return [text for text in texts if text] or texts


def _labels(prediction: Prediction) -> list[str]:
    """The best labels of a result; none where it has an error."""
    if prediction.error is not None:
        return []
    return [text.strip() for text in texts_in(prediction.columns.get(LABELS))]


def _share(right: Sequence[bool]) -> Figure:
    return Figure(100 * sum(right) / len(right), [100.0 * each for each in right])


def _summed(counts: Iterable[tuple[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for label, count in counts:
        total[label] += count
    return total
