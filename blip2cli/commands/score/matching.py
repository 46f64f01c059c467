"""Matches results with references by a common key: a question's id, an image's id or name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from blip2cli.commands.score.predictions import PredictionKind, Predictions
from blip2cli.commands.score.records import Pair, Prediction, Reference
from blip2cli.commands.score.references import References
from blip2cli.commands.score.tables import IMAGE, identity
from blip2cli.errors import UsageError

LOOKED_AT = ("question_id", "image_id", IMAGE, "question")
"""Columns by which results and references may be matched."""


@dataclass(frozen=True)
class Way:
    """One way to match: its name, and the key it gives to the columns of a result and of a reference, None for none."""

    name: str
    of_result: Callable[[Mapping[str, Any]], str | None]
    of_reference: Callable[[Mapping[str, Any]], str | None]
    kinds: tuple[PredictionKind, ...] = ("answers", "captions", "labels")


def _id(name: str) -> Callable[[Mapping[str, Any]], str | None]:
    return lambda columns: identity(columns.get(name))


def _file_name(columns: Mapping[str, Any]) -> str | None:
    name = identity(columns.get(IMAGE))
    return None if name is None else PurePosixPath(name.replace("\\", "/")).name


def _number(columns: Mapping[str, Any]) -> str | None:
    """The number that ends the image's name, as COCO has it."""
    match = re.search(r"(\d{1,20})\.\w+$", _file_name(columns) or "")
    return str(int(match[1])) if match else None


def _with_question(image: Callable[[Mapping[str, Any]], str | None]) -> Callable[[Mapping[str, Any]], str | None]:
    def key(columns: Mapping[str, Any]) -> str | None:
        name, question = image(columns), identity(columns.get("question"))
        return None if name is None or question is None else f"{name}: {question}"

    return key


WAYS = (
    Way("question_id", _id("question_id"), _id("question_id"), ("answers",)),
    Way("image_id", _id("image_id"), _id("image_id"), ("captions", "labels")),
    Way("image and question", _with_question(_id(IMAGE)), _with_question(_id(IMAGE)), ("answers",)),
    Way("file name and question", _with_question(_file_name), _with_question(_file_name), ("answers",)),
    Way("image", _id(IMAGE), _id(IMAGE)),
    Way("file name", _file_name, _file_name),
    Way("the number that ends the file name", _number, _id("image_id"), ("captions", "labels")),
)
"""Tried in this order; the first that matches any result with a reference is used."""


@dataclass(frozen=True)
class Matched:
    """Pairs in the order of the references, and the rest: keys of references without a result, and so on."""

    way: str
    pairs: Sequence[Pair]
    unanswered: Sequence[str]
    unknown: Sequence[str]
    repeated: Sequence[str]


def match(predictions: Predictions, references: References) -> Matched:
    """Match results with references. Raises UsageError if none match, or if two results for one differ."""
    for way in WAYS:
        if references.kind in way.kinds:
            keyed = [(way.of_reference(reference.columns), reference) for reference in references.rows]
            keys = {key for key, _ in keyed if key is not None}
            answered = [(way.of_result(prediction.columns), prediction) for prediction in predictions.rows]
            if any(key in keys for key, _ in answered):
                return _matched(way, answered, _gathered(keyed, references.kind))
    raise UsageError(
        "no result has a reference" if predictions.rows else "there are no results",
        "They are matched by question_id, image_id, or the image's name and the question; both files must have them.",
    )


def _gathered(keyed: Sequence[tuple[str | None, Reference]], kind: PredictionKind) -> dict[str, Reference]:
    """References by key. Captions of one image may be in several rows; answers to one question may not."""
    gathered: dict[str, Reference] = {}
    for key, reference in keyed:
        if key is None:
            continue
        before = gathered.setdefault(key, reference)
        if before is reference:
            continue
        if kind == "captions":
            gathered[key] = replace(before, texts=before.texts + reference.texts)
        elif before.texts != reference.texts:
            raise UsageError(
                f"two references for {key!r} differ",
                "Give each image one row, with its path as the results have it."
                if kind == "labels"
                else "Give each question an id in a column question_id, or only one row.",
            )
    return gathered


def _matched(
    way: Way, answered: Sequence[tuple[str | None, Prediction]], references: Mapping[str, Reference]
) -> Matched:
    results: dict[str, Prediction] = {}
    repeated, unknown = [], []
    for key, prediction in answered:
        if key is None or key not in references:
            unknown.append(key or str(prediction.columns.get(IMAGE)))
        elif (before := results.setdefault(key, prediction)) is not prediction:
            if (before.text, before.error) != (prediction.text, prediction.error):
                raise UsageError(
                    f"two results for {key!r} differ, matched by {way.name}",
                    "Score one result for each: rows of one prompt, or rows with ids of their questions.",
                )
            repeated.append(key)
    pairs = [Pair(key, results[key], reference) for key, reference in references.items() if key in results]
    unanswered = [key for key in references if key not in results]
    return Matched(way.name, pairs, unanswered, unknown, repeated)
