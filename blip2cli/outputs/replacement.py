"""An output that is written under another name and replaces this one when it is whole."""

from __future__ import annotations

import os
import shutil

from blip2cli.outputs.journal import adopt, parts_folder, read_journal
from blip2cli.outputs.target import Target


def swap_in(target: Target) -> None:
    """Replace an output by the retried one, if that is whole; goes on where it was interrupted."""
    if target.is_remote or not target.format.has_journal:
        return
    out, retried = target.path, target.retried
    record = read_journal(retried.journal_path)
    if record is None or not record.commit.finished:
        return
    if retried.path.exists():
        if out.is_dir():
            shutil.rmtree(out)
        os.replace(retried.path, out)
    adopt(target.journal_path, retried.journal_path)
    shutil.rmtree(parts_folder(out), ignore_errors=True)
