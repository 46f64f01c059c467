"""Whether an output is resumed or started again: its journal, opened or only read."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip2cli.outputs.commits import Commit, Header, JournalContent
from blip2cli.outputs.journal import Journal, RemoteJournal, parts_folder
from blip2cli.outputs.layout import Layout, column_in_words
from blip2cli.outputs.stamp import Stamp
from blip2cli.outputs.target import Target

if TYPE_CHECKING:
    from blip2cli.settings import OutputSettings


def header_of(target: Target, settings: OutputSettings, layout: Layout, fingerprint: Mapping[str, Any]) -> Header:
    """All that the output's rows and their places depend on."""
    columns = {column.name: column_in_words(column) for column in layout.columns}
    return Header(settings_of(target, settings, fingerprint), layout.carried_types(), columns)


def settings_of(target: Target, settings: OutputSettings, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """The run's settings, with those of the output that a resumed run must share."""
    cut = {"shard_size": settings.shard_size} if target.shards else {}
    return {**fingerprint, "format": target.name, **cut}


def open_journal(target: Target, settings: OutputSettings, header: Header) -> Journal:
    """The output's journal: continued, or started after an existing output is removed. Raises UsageError."""
    journal = _journal(target, header)
    if settings.continues and target.is_begun():
        journal.resume()
    else:
        _clear(target)
        journal.start()
    return journal


def already_done(target: Target, header: Header) -> Commit:
    """What is committed, and a resumed run will not repeat. Nothing is changed. Raises UsageError as resuming would."""
    return _journal(target, header).check().commit


def finished(target: Target, header: Header) -> Commit | None:
    """What is committed, if the output is complete. Raises UsageError for settings that have changed.

    This is cheaper than opening the output: a job that is started again and again soon finds that it is done.
    """
    record = _journal(target, header).check()
    if not record.commit.finished or not _is_whole(target, record):  # what is wrong is found when it is opened
        return None
    if not target.is_remote:
        shutil.rmtree(parts_folder(target.path), ignore_errors=True)  # of a run killed when all was done
    return record.commit


def _is_whole(target: Target, record: JournalContent) -> bool:
    """Whether a finished output is as it was committed."""
    state = record.commit.state
    if not target.shards:
        return "checksum" in state and Stamp(state.get("size", 0), state["checksum"]).fits(target.path)
    files = target.format.shard_files
    count = sum(path.is_file() for path in target.path.rglob("*"))
    if count != len(record.shards) * len(files):
        return False
    for number, stamps in record.shards.items():
        for name, (size, checksum) in zip(files, stamps, strict=True):
            if not Stamp(size, checksum).fits(target.path / name.format(number), head=0):
                return False
    return True


def _journal(target: Target, header: Header) -> Journal:
    kind = RemoteJournal if target.is_remote else Journal
    return kind(target.journal_path, target.named or target.path, header)


def _clear(target: Target) -> None:
    """Remove an output with all that belongs to it, an unfinished retry too, which must not replace it later.

    The hidden file stays, as the run's lock is on it.
    """
    _remove(target.path)
    if target.is_remote:
        return
    retried = target.retried
    _remove(retried.path)
    for path in (target.path, retried.path):
        shutil.rmtree(parts_folder(path), ignore_errors=True)
    retried.journal_path.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for shard in sorted(path.rglob("*"), key=str, reverse=True):
        if not shard.is_dir():
            shard.unlink()
        elif isinstance(path, Path):  # behind a URL folders are only names
            shard.rmdir()
