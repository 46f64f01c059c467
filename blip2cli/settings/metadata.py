"""The settings of a run in the metadata of the files that it writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

METADATA_KEY = b"blip2"
"""Under which they stand, as JSON."""


def as_metadata(settings: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Settings as a file's metadata."""
    return {METADATA_KEY: json.dumps(dict(settings)).encode()}


def settings_of(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """The settings in a file's metadata; empty where another program wrote it."""
    try:
        settings = json.loads((metadata or {}).get(METADATA_KEY, b"{}"))
    except (ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}
