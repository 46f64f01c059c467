"""An output that is written beside another, and takes its place when it is whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from blip2cli.outputs import beside, parts_folder
from blip2cli.outputs.journal import committed, path_of, publish


def take_place(out: Path) -> None:
    """Put the output that stands beside this one in its place, if it is whole; goes on where it was interrupted."""
    whole = beside(out)
    if not isinstance(out, Path) or not committed(whole).finished:
        return
    if whole.exists():
        if out.is_dir():
            shutil.rmtree(out)
        os.replace(whole, out)
    publish(path_of(whole), path_of(out))
    shutil.rmtree(parts_folder(out), ignore_errors=True)
