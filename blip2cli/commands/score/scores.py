"""The figures of all pairs, and of groups of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blip2cli.commands.score.records import Figure, Pair

if TYPE_CHECKING:
    from blip2cli.commands.score.labels import Confusion
    from blip2cli.commands.score.matching import Matched


@dataclass(frozen=True)
class Group:
    """Some pairs, and their figures by metric."""

    pairs: Sequence[Pair]
    figures: dict[str, Figure]


@dataclass(frozen=True)
class Scores:
    """The matched pairs and their figures: of all pairs together, and of groups by column
    and value."""

    matched: Matched
    every: Group
    groups: dict[str, dict[str, Group]]
    left_out: dict[str, str]
    confusion: Confusion | None = None
