"""Maps of where the model looked, as --explain writes them and as a page holds them: a byte for each patch."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from blip2cli.inputs.cells import json_list
from blip2cli.tasks.explain import MAP, WORD_MAPS, WORDS

LARGEST = 64
"""Patches on a side of a map that is shown."""

MOST_WORDS = 100
"""Words of a text whose maps are shown."""

BRIGHTEST = 255


@dataclass(frozen=True)
class PageMap:
    """One map: the answer that it belongs to, or none; the word, or none for a whole text; its patches in base64."""

    answer: str
    word: str
    columns: int
    patches: str

    def packed(self) -> list[str | int]:
        """The map as the script reads it."""
        return [self.answer, self.word, self.columns, self.patches]


def maps_of(columns: Mapping[str, Any]) -> tuple[list[PageMap], set[str]]:
    """The maps of a row, and the names of the columns that they are in.

    Those of one of several answers have its name before them, as in `people_map`.
    """
    maps: list[PageMap] = []
    taken: set[str] = set()
    for name, value in columns.items():
        if name != MAP and not name.endswith(f"_{MAP}"):
            continue
        heights = _array(value)
        if heights is None or heights.ndim != 2 or not 0 < max(heights.shape) <= LARGEST:
            continue
        prefix = name.removesuffix(MAP)
        answer = prefix.removesuffix("_")
        maps.append(_page_map(answer, "", heights))
        taken.add(name)
        words = list(_words(columns, prefix, heights.shape))
        maps += [_page_map(answer, word, of_word) for word, of_word in words]
        if words:
            taken |= {prefix + WORDS, prefix + WORD_MAPS}
    return maps, taken


def _words(columns: Mapping[str, Any], prefix: str, shape: tuple[int, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """The words of a text and their maps, if they are there as they should be."""
    words, numbers = _listed(columns.get(prefix + WORDS)), _array(columns.get(prefix + WORD_MAPS))
    if words is None or numbers is None or numbers.size != len(words) * shape[0] * shape[1]:
        return
    maps = numbers.reshape(len(words), *shape)
    yield from zip(map(str, words[:MOST_WORDS]), maps, strict=False)


def _page_map(answer: str, word: str, heights: np.ndarray) -> PageMap:
    patches = np.rint(heights * BRIGHTEST).astype(np.uint8)
    return PageMap(answer, word, heights.shape[1], base64.b64encode(patches.tobytes()).decode())


def _array(value: Any) -> np.ndarray | None:
    """Numbers from 0 to 1, which CSV has as JSON; None for anything else."""
    listed = _listed(value)
    if listed is None:
        return None
    try:
        numbers = np.asarray(listed, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        return None
    is_map = numbers.size and bool(((numbers >= 0) & (numbers <= 1)).all())
    return numbers if is_map else None


def _listed(value: Any) -> Any:
    """A list or an array, which CSV has as JSON; None for anything else."""
    if isinstance(value, str):
        return json_list(value)
    return value if isinstance(value, (list, tuple, np.ndarray)) else None
