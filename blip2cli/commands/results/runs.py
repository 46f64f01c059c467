"""The settings of the runs that wrote results, as far as they are on record: in the files, or beside them."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

from blip2cli.host import storage
from blip2cli.inputs import format_of, metadata_in
from blip2cli.inputs.walk import walk
from blip2cli.outputs import FORMATS
from blip2cli.outputs.journal import hidden_beside, settings_in
from blip2cli.settings.metadata import settings_of


def run_settings(name: str) -> dict[str, Any]:
    """The settings of the run that wrote a file, or a folder of shards; empty if they are not on record."""
    if not storage.is_url(name) and os.path.isdir(name):
        files = islice(walk(name, lambda file: format_of(file) is not None), 1)
        return next(map(_in_schema, files), {}) or _in_journal(name)
    return _in_schema(name) or _in_journal(name)


def _in_journal(name: str) -> dict[str, Any]:
    """What the hidden file says that stands beside results."""
    if storage.is_url(name):
        return {}
    real = Path(os.path.realpath(name))
    indexes = {entry.index for entry in FORMATS.values()}
    headers = (settings_in(hidden_beside(real, index)) for index in sorted(indexes))
    return dict(next(filter(None, headers), {}))


def _in_schema(name: str) -> dict[str, Any]:
    """What the file itself says, in its format's metadata."""
    return settings_of(metadata_in(name))
