"""Imports: of objects by name, so that a registry can name a class without importing it,
and of large libraries."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any


def load_object(name: str) -> Any:
    """What "module:Name" names; the module is imported if it has not been yet."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


@contextmanager
def without_collection() -> Iterator[None]:
    """While inside, Python does not search for garbage.

    Libraries that are imported make many objects that stay. To search all of them again
    and again while there are more and more took a tenth of the time of captioning one image.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
