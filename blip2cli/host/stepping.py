"""Taking the items of an iterator one by one, each within a context of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

T = TypeVar("T")


def taken_within(context: Callable[[], AbstractContextManager[object]], items: Iterator[T]) -> Iterator[T]:
    """The items; each is taken inside a new context, which has ended when the item is
    yielded."""
    while True:
        with context():
            try:
                item = next(items)
            except StopIteration:
                return
        yield item
