"""What the values are that Python code gives as input: names, images, tables, or collections of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from glob import has_magic
from typing import Any

from blip2cli.errors import UsageError
from blip2cli.host.storage import is_url
from blip2cli.inputs import Source, format_of
from blip2cli.inputs.memory import MemoryTable, table_in_memory
from blip2cli.inputs.objects import KINDS, Objects, is_one_image

Input = str | Source | MemoryTable
"""What `open_source` takes: an INPUT as the command line takes it, or objects in memory."""


def inputs_in(value: Any) -> tuple[Input, ...]:
    """The inputs that a value stands for. Raises UsageError for one that is neither an image nor a collection."""
    if is_name(value):
        return (os.fspath(value),)
    if is_one_image(value):
        return (Objects((value,)),)
    if (table := table_in_memory(value)) is not None:
        return (table,)
    if isinstance(value, (list, tuple)) and any(map(_names_several, value)) and all(map(is_name, value)):
        return tuple(map(os.fspath, value))
    return (Objects(_collection(value)),)


def images_in(value: Any) -> Iterable[Any]:
    """The images that a value stands for: one, or those of a collection. Raises UsageError for other values."""
    if is_name(value) or is_one_image(value):
        return (value,)
    return _collection(value)


def is_name(value: Any) -> bool:
    """Whether a value is the name of something: a text, or a path."""
    return isinstance(value, (str, os.PathLike))


def _collection(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise UsageError(
            f"a value of type {type(value).__name__} is neither an image nor a collection of images", KINDS
        )
    return value


def _names_several(value: Any) -> bool:
    """Whether a value names what may hold several images: a folder, a pattern, a manifest or an archive."""
    if not is_name(value):
        return False
    name = os.fspath(value)
    is_pattern = not is_url(name) and not os.path.lexists(name) and has_magic(name)
    return os.path.isdir(name) or format_of(name) is not None or is_pattern
