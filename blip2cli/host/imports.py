"""Imports objects by name, so that a registry can name a class without importing it."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def load_object(name: str) -> Any:
    """What "module:Name" names; the module is imported if it has not been yet."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)
