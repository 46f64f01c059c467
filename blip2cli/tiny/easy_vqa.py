"""The easy-VQA data set (Victor Zhou, MIT licence), read from its package, which only training and accuracy need."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from .phrases import Question
from .scenes import COLOURS, KINDS


@dataclass(frozen=True)
class Picture:
    """One image with its questions; colour and kind are None where no question of the data set gives them away."""

    number: int
    path: Path
    questions: tuple[Question, ...]
    colour: str | None
    kind: str | None


def pictures(split: str) -> list[Picture]:
    """Read the split `train` (4,000 images) or `test` (1,000 images). Raises ImportError without the package."""
    import easy_vqa

    source = {
        "train": (easy_vqa.get_train_questions, easy_vqa.get_train_image_paths),
        "test": (easy_vqa.get_test_questions, easy_vqa.get_test_image_paths),
    }[split]
    questions: dict[int, list[Question]] = defaultdict(list)
    for text, answer, number in zip(*source[0](), strict=True):
        questions[number].append(Question(text, answer))
    return [_picture(number, Path(path), questions[number]) for number, path in sorted(source[1]().items())]


def _picture(number: int, path: Path, questions: list[Question]) -> Picture:
    colour = _attribute(questions, tuple(COLOURS))
    return Picture(number, path, tuple(questions), colour, _attribute(questions, KINDS))


def _attribute(questions: list[Question], values: tuple[str, ...]) -> str | None:
    """The one of `values` that an answer names, or that a yes/no question settles."""
    for question in questions:
        words = question.text.rstrip("?").split()
        negated = "not" in words or "no" in words
        if question.answer in values:
            return question.answer
        if question.answer not in ("yes", "no"):
            continue
        named = [word for word in words if word in values]
        if named and (question.answer == "yes") != negated:
            return named[0]
    return None
