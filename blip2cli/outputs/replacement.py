"""An output that is written beside another, and takes its place when it is whole."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from blip2cli.outputs import Target, beside
from blip2cli.outputs.journal import adopt, parts_folder, read_journal


def take_place(target: Target) -> None:
    """Put the output that stands beside this one in its place, if it is whole; goes on where it was interrupted."""
    out = target.out
    if not isinstance(out, Path):
        return
    whole = replace(target, out=beside(out))
    record = read_journal(whole.kept)
    if record is None or not record.commit.finished:
        return
    if whole.out.exists():
        if out.is_dir():
            shutil.rmtree(out)
        os.replace(whole.out, out)
    adopt(target.kept, whole.kept)
    shutil.rmtree(parts_folder(out), ignore_errors=True)
