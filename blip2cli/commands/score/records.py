"""The records of scoring: results, references, and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Prediction:
    """One result. `text` is empty where there is an `error`; `columns` are the other columns that scoring uses."""

    text: str
    error: str | None
    columns: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reference:
    """The texts that people wrote for one question or image.

    `marks` tells equal texts apart where two people might be the same one: texts with the same mark are one person's.
    None says that each text has its own person.
    """

    texts: tuple[str, ...]
    columns: Mapping[str, Any]
    marks: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A result and its reference, matched by `key`."""

    key: str
    prediction: Prediction
    reference: Reference


@dataclass(frozen=True)
class Figure:
    """One metric of some pairs, in percent: of all together, and of each."""

    overall: float
    rows: Sequence[float]
