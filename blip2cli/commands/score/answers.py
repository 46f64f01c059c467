"""Answers to questions: accuracy as the VQA evaluation defines it, and plain equality.

The behaviour matched is that of vqaEvaluation/vqaEval.py (VQA API of Agrawal et al., github.com/GT-Vision-Lab/VQA, run
by Python 3), and of the older copy of it in LAVIS, with which the paper's figures were made.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

from blip2cli.commands.score.contractions import CONTRACTIONS
from blip2cli.commands.score.records import Figure, Pair, Reference
from blip2cli.errors import UsageError

NUMBERS = {"none": "0"} | {
    word: str(number) for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
}
ARTICLES = frozenset(("a", "an", "the"))
PUNCTUATION = frozenset(';/[]"{}()=+\\_-><@`,?!')

COMMA_IN_NUMBER = re.compile(r"\d,\d")

PERIOD = re.compile(r"\.(?!\d)")
"""A period to remove. The one in "5." is also removed: the evaluation's look-behind for a digit is mistyped."""

PERIODS = 32
"""How many periods are removed from an answer: the evaluation passes re.UNICODE, which is 32, as the count."""

ENOUGH = 3
"""People who must have given an answer for it to be fully right."""


@cache
def without_punctuation(text: str) -> str:
    """The evaluation's processPunctuation: a mark becomes a space, or nothing if it is next to a space."""
    everywhere = COMMA_IN_NUMBER.search(text) is not None
    changed = text
    for mark in PUNCTUATION.intersection(text):
        beside_space = f"{mark} " in text or f" {mark}" in text
        changed = changed.replace(mark, "" if everywhere or beside_space else " ")
    return PERIOD.sub("", changed, count=PERIODS)


@cache
def normalised(text: str) -> str:
    """processPunctuation, then processDigitArticle: lower case, digits for numbers, no articles, right contractions."""
    words = (NUMBERS.get(word, word) for word in without_punctuation(text).lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def stripped(text: str) -> str:
    """A text as the evaluation reads it."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def vqa_accuracy(answer: str, reference: Reference) -> float:
    """The VQA evaluation's accuracy of an answer, from 0 to 1.

    Nothing is normalised where all people gave the same answer: then "Yes" is not "yes".
    """
    answer, people = stripped(answer), [stripped(text) for text in reference.texts]
    if len(set(people)) > 1:
        answer, people = normalised(answer), [normalised(text) for text in people]
    return leave_one_out(answer, people, reference.marks)


def vqa_accuracy_lavis(answer: str, reference: Reference) -> float:
    """The accuracy of LAVIS's copy: the answer is always normalised, people's answers only lose their punctuation."""
    people = list(reference.texts)
    if len(set(people)) > 1:
        people = [without_punctuation(text) for text in people]
    return leave_one_out(normalised(stripped(answer)), people, reference.marks)


def leave_one_out(answer: str, people: Sequence[str], marks: Sequence[str] | None) -> float:
    """The mean, over each person left out, of the share of ENOUGH that gave the answer among the others."""
    agreeing = people.count(answer)
    if not agreeing:
        return 0.0
    copies = Counter(mark for text, mark in zip(people, marks, strict=True) if text == answer) if marks else None
    shares = []
    for at, text in enumerate(people):
        if text != answer:
            left_out = 0
        elif copies is None or marks is None:
            left_out = 1
        else:
            left_out = copies[marks[at]]
        shares.append(min(1.0, (agreeing - left_out) / ENOUGH))
    return sum(shares) / len(shares)


def exact_match(answer: str, reference: Reference) -> float:
    """Whether the answer is exactly one of those given (GQA's own accuracy, where there is one)."""
    return float(answer.strip() in (text.strip() for text in reference.texts))


def normalised_match(answer: str, reference: Reference) -> float:
    """Whether they are equal when both are normalised, as LAVIS scores GQA."""
    return float(normalised(answer) in map(normalised, reference.texts))


METRICS: dict[str, Callable[[str, Reference], float]] = {
    "vqa_accuracy": vqa_accuracy,
    "vqa_accuracy_lavis": vqa_accuracy_lavis,
    "exact_match": exact_match,
    "normalised_match": normalised_match,
}

NEEDS_SEVERAL = ("vqa_accuracy", "vqa_accuracy_lavis")
"""Metrics that compare people with each other."""


class AnswerMetrics:
    """Measures answers. Without `asked` it gives every metric that the references allow."""

    def __init__(self, pairs: Sequence[Pair], asked: Sequence[str] | None) -> None:
        self.left_out: dict[str, str] = {}
        self.names = [name for name in METRICS if asked is None or name in asked]
        if all(len(pair.reference.texts) < 2 for pair in pairs):
            if asked is not None and set(NEEDS_SEVERAL) & set(asked):
                raise UsageError(
                    "the references have one answer for each question, and VQA accuracy needs several",
                    "Use --metrics exact_match,normalised_match.",
                )
            self.names = [name for name in self.names if name not in NEEDS_SEVERAL]

    def measure(self, pairs: Sequence[Pair]) -> dict[str, Figure]:
        """A figure for each metric; what carries an error is wrong."""
        return {name: _figure(METRICS[name], pairs) for name in self.names}


def _figure(metric: Callable[[str, Reference], float], pairs: Sequence[Pair]) -> Figure:
    rows = [
        0.0 if pair.prediction.error is not None else metric(pair.prediction.text, pair.reference) for pair in pairs
    ]
    return Figure(100 * sum(rows) / len(rows), [100 * row for row in rows])
