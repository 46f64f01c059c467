"""Where rows go: one file a format, and `open_output`, which chooses by the suffix of --out."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from blip2cli.errors import UsageError, reason
from blip2cli.host.files import check_writable, real_path
from blip2cli.host.imports import load_object
from blip2cli.host.storage import is_folder
from blip2cli.outputs.commits import Commit, Header, Record
from blip2cli.outputs.journal import Journal, RemoteJournal, hidden_beside, parts_folder, read_journal
from blip2cli.outputs.layout import Layout, described
from blip2cli.outputs.lock import locked
from blip2cli.records import Result

if TYPE_CHECKING:
    from blip2cli.settings import OutputSettings


@dataclass(frozen=True)
class Format:
    """One format: the class that writes it, made from (path, Layout, Journal), and where it may be used.

    `suffixes` are those of its files, the first that of its shards. `tasks` are those whose rows it can hold, empty for
    all. `layout` says what it makes of --out: a "file", or a folder of "shards" where --out is a folder; always
    "shards"; the "index" file, of this name, of a folder that others fill; or files "beside" the images.
    `files` are those of a shard where they are not one file with the suffix. `copies_images` says that it needs the
    bytes of images, which are given up once decoded where it does not.
    """

    cls: str
    suffixes: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    layout: Literal["file", "shards", "index", "beside"] = "file"
    index: str = ""
    files: tuple[str, ...] = ()
    copies_images: bool = False

    @property
    def make(self) -> Callable[[Path, Layout, Any], Output]:
        """What makes its output from (path, Layout, Journal)."""
        made: Callable[[Path, Layout, Any], Output] = load_object(self.cls)
        return made

    @property
    def shard_files(self) -> tuple[str, ...]:
        """Names of a shard's files below the folder, with a place for its number."""
        return self.files or (f"part-{{:05}}{self.suffixes[0]}",)


FORMATS = {
    "parquet": Format("blip2cli.outputs.parquet:ParquetOutput", (".parquet",)),
    "jsonl": Format("blip2cli.outputs.jsonl:JsonlOutput", (".jsonl", ".ndjson", ".jsonl.gz", ".jsonl.zst")),
    "csv": Format("blip2cli.outputs.csv:CsvOutput", (".csv", ".tsv", ".csv.gz", ".csv.zst")),
    "arrow": Format("blip2cli.outputs.feather:ArrowOutput", (".arrow", ".feather")),
    "coco": Format("blip2cli.outputs.results:CocoResults", tasks=("caption",)),
    "vqa": Format("blip2cli.outputs.results:VqaResults", tasks=("vqa",)),
    "npy": Format(
        "blip2cli.outputs.npy:NpyOutput",
        tasks=("embed",),
        layout="shards",
        files=("img_emb/img_emb_{:05}.npy", "metadata/metadata_{:05}.parquet"),
    ),
    "webdataset": Format(
        "blip2cli.outputs.webdataset:WebDatasetOutput",
        tasks=("caption",),
        layout="shards",
        files=("{:05}.tar", "{:05}.parquet"),
        copies_images=True,
    ),
    "sidecar": Format("blip2cli.outputs.sidecar:SidecarOutput", tasks=("caption",), layout="beside"),
    "imagefolder": Format(
        "blip2cli.outputs.imagefolder:ImageFolderOutput",
        tasks=("caption",),
        layout="index",
        index="metadata.jsonl",
        copies_images=True,
    ),
}
"""Name, as --format has it, → format."""


class Output(Protocol):
    """Takes rows in input order. `committed` is what an earlier run has committed."""

    committed: Commit

    def write(self, results: Sequence[Result]) -> None:
        """Take rows, the last of which is its input row's last; they may wait in memory."""

    def commit(self) -> None:
        """Put what was taken on disk, for good."""

    def finish(self) -> None:
        """Commit, and put the output in its final form."""

    def records(self) -> Iterator[dict[str, Any]]:
        """The committed rows, by the names of their columns."""


@dataclass(frozen=True)
class Target:
    """Where an output goes, settled: `out` is the file, or with `shards` the folder; `name` names its format."""

    name: str
    out: Path
    shards: bool

    @property
    def format(self) -> Format:
        return FORMATS[self.name]

    @property
    def kept(self) -> Path:
        """The hidden file that says what is committed: beside the output, never in a folder that others read."""
        return hidden_beside(self.out.parent, self.out.name) if self.format.index else hidden_beside(self.out)


def target_of(settings: OutputSettings) -> Target | None:
    """What --out and --format mean together; None for stdout. Raises UsageError where they do not fit.

    A symbolic link stands for what it leads to.
    """
    named, name = settings.out, settings.format
    if name == "sidecar":
        return None  # which has no file of its own
    if named is None:
        if name is not None:
            raise UsageError(f"--format {name} needs --out", "Name a file or a folder.")
        return None
    out = real_path(named) if isinstance(named, Path) else named
    if _is_folder(out) or not named.suffix:
        return _folder_target(out, name or "parquet")
    if out.suffix != named.suffix:
        raise UsageError(f"{named} leads to {out}, whose suffix is another", "Name the file itself.")
    return _file_target(out, name)


def _folder_target(out: Path, name: str) -> Target:
    known = FORMATS[name]
    if known.layout == "index":
        return Target(name, out / known.index, shards=False)
    if known.layout == "file" and not known.suffixes:
        raise UsageError(f"--format {name} is one file, and {out} is a folder", f"Name a file: {out}.json")
    return Target(name, out, shards=True)


def _file_target(out: Path, name: str | None) -> Target:
    found = next((known for known, entry in FORMATS.items() if out.name.lower().endswith(entry.suffixes or "/")), None)
    if name is None and found is None:
        known = ", ".join(suffix for entry in FORMATS.values() for suffix in entry.suffixes)
        raise UsageError(
            f"cannot tell the format of {out}", f"End its name in one of {known}, or name a folder, without a suffix."
        )
    chosen = name or found or ""
    if FORMATS[chosen].layout == "shards":
        raise UsageError(f"--format {name} writes a folder, and {out} is a file", "Name a folder, without a suffix.")
    if found not in (chosen, None) and FORMATS[chosen].layout != "index":
        raise UsageError(f"--format {name} does not go with {out}", "Its suffix says another format; leave out one.")
    return Target(chosen, out, shards=False)


def _is_folder(out: Path) -> bool:
    try:
        return out.is_dir() if isinstance(out, Path) else is_folder(str(out))
    except OSError as error:
        raise UsageError(f"cannot reach {out}: {reason(error)}", "Check the name and your access.") from None


@contextmanager
def locked_output(settings: OutputSettings, keep: bool = True) -> Iterator[None]:
    """Keep other runs off an output while inside; nothing where it is not a file or folder on this machine.

    What is kept for resuming is removed at the end if there is nothing to go on with, or with `keep` false. Raises
    UsageError.
    """
    target, named = target_of(settings), settings.out
    out = target.out if target is not None else named
    if named is None or not isinstance(out, Path):
        yield
        return
    out = real_path(out)
    kept = target.kept if target is not None else hidden_beside(out)
    with locked(kept, out, named):
        try:
            yield
        finally:
            if not keep or not _is_of_use(kept, target):
                kept.unlink(missing_ok=True)
                shutil.rmtree(parts_folder(out), ignore_errors=True)


def _is_of_use(kept: Path, target: Target | None) -> bool:
    """Whether a hidden file has something to go on with: a commit, or rows that were written without one."""
    try:
        record = read_journal(kept)
    except UsageError:  # it is left as it is
        return True
    if record is None:
        return False
    return record.commit != Commit() or (target is not None and is_there(target))


def check_places(settings: OutputSettings) -> None:
    """See that there is where the output goes, before anything is touched. Raises UsageError."""
    for path in (settings.out, settings.summary):
        if isinstance(path, Path):
            check_writable(path)
    if settings.summary is not None and settings.summary.is_dir():
        raise UsageError(f"{settings.summary} is a folder", "Name a file for --summary.")
    target = target_of(settings)
    if target is not None and isinstance(target.out, Path) and settings.summary is not None and target.shards:
        inside = os.path.relpath(os.path.realpath(settings.summary), os.path.realpath(target.out))
        if not inside.startswith(".."):
            raise UsageError(f"--summary {settings.summary} is in the folder of the shards", "Name another place.")


def check_output(settings: OutputSettings, task: str, resumes: bool = True) -> None:
    """See that the output can be written, before anything slow is done. Raises UsageError.

    Args:
        settings: the output.
        task: the task's name.
        resumes: whether the task's runs can be resumed.
    """
    check_places(settings)
    known = FORMATS[settings.format] if settings.format else None
    if known is not None and known.tasks and task not in known.tasks:
        raise UsageError(f"--format {settings.format} is not for {task}", f"It is for {', '.join(known.tasks)}.")
    if settings.format == "sidecar" and settings.out is not None:
        _check_sidecar(settings.out)
    target = target_of(settings)
    if target is None:
        return
    out = target.out
    if not isinstance(out, Path) and not target.shards:
        raise UsageError(f"{out} is a file, and remote outputs are folders", "Leave out the suffix, and say --format.")
    if not isinstance(out, Path) and settings.retry_errors:
        raise UsageError(
            "--retry-errors is not for remote outputs", f"Copy the folder and its {target.kept.name} here first."
        )
    if target.shards:
        _check_shards(out, target.format.shard_files)
    if not settings.resume and not settings.overwrite and begun(target):
        state = "exists" if is_there(target) else "was begun and not finished"
        go_on = "--resume to go on with it, " if resumes else ""
        shown = out if target.format.index else settings.out
        raise UsageError(f"{shown} {state}", f"Use {go_on}--overwrite to replace it, or another name.")


def is_there(target: Target) -> bool:
    """Whether the output itself is there; a file or folder without anything in it is not.

    But an empty file is there where that is what was committed of rows that were all left out. Raises UsageError for a
    damaged journal beside an empty file.
    """
    if target.shards:
        return target.out.is_dir() and any(not path.is_dir() for path in target.out.rglob("*"))
    if not target.out.exists():
        return False
    return target.out.stat().st_size > 0 or _is_committed_empty(target)


def _is_committed_empty(target: Target) -> bool:
    """Whether rows are committed of which a file of no bytes has come."""
    record = read_journal(target.kept)
    return record is not None and record.commit.rows > 0 and record.commit.state.get("size") == 0


def begun(target: Target) -> bool:
    """Whether there is something to lose: an output, or committed parts of one that was never there.

    An output that was there and is gone was removed by its user. Raises UsageError for a damaged journal of parts.
    """
    if is_there(target):
        return True
    if not isinstance(target.out, Path) or not parts_folder(target.out).is_dir():
        return False
    record = read_journal(target.kept)
    if record is None or not record.commit.rows or record.commit.finished:
        return False
    return not target.shards or (target.out.is_dir() and not record.commit.state.get("shard", 0))


def open_output(settings: OutputSettings, layout: Layout, fingerprint: Mapping[str, Any]) -> Output:
    """The output that the settings name, ready to take rows, what an earlier run left torn repaired.

    Raises UsageError, with nothing changed, where it cannot be gone on with.
    """
    target = target_of(settings)
    if settings.format == "sidecar":
        from blip2cli.outputs.sidecar import SidecarOutput

        return SidecarOutput(settings, layout, _stdout(layout) if settings.out is None else None, fingerprint)
    if target is None:
        return _stdout(layout)
    journal = open_journal(target, settings, header_of(target, settings, layout, fingerprint))
    out, make = target.out, target.format.make
    if not target.shards:
        output: Output = make(out, layout, journal)
        return output
    if not isinstance(out, Path):
        from blip2cli.outputs.remote import RemoteShards

        return RemoteShards(out, layout, journal, make, target.format.shard_files, settings.shard_size)
    from blip2cli.outputs.shards import ShardedOutput

    return ShardedOutput(out, layout, journal, make, target.format.shard_files, settings.shard_size)


def header_of(target: Target, settings: OutputSettings, layout: Layout, fingerprint: Mapping[str, Any]) -> Header:
    """All that the output's rows and their places depend on."""
    columns = {column.name: described(column) for column in layout.columns}
    return Header(settings_of(target, settings, fingerprint), layout.carried_types(), columns)


def settings_of(target: Target, settings: OutputSettings, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """The run's settings, with those of the output that a resumed run must share."""
    cut = {"shard_size": settings.shard_size} if target.shards else {}
    return {**fingerprint, "format": target.name, **cut}


def open_journal(target: Target, settings: OutputSettings, header: Header) -> Journal:
    """The output's journal: taken up, or begun in place of an output there may be. Raises UsageError."""
    journal = _journal(target, settings, header)
    if settings.resume and begun(target):
        journal.resume()
    else:
        _clear(target)
        journal.start()
    return journal


def already_done(settings: OutputSettings, header: Header) -> Commit:
    """What a run with these settings would go on behind; nothing is changed. Raises UsageError as resuming would."""
    target = target_of(settings)
    if target is None or not settings.resume or not begun(target):
        return Commit()
    return _journal(target, settings, header).check().commit


def finished(settings: OutputSettings, header: Header) -> Commit | None:
    """What is committed, where it is whole and is to be resumed. Raises UsageError for other settings than it had.

    Cheaper than to open it: a job that is started again and again finds out soon that it is done.
    """
    target = target_of(settings)
    if target is None or not settings.resume or not is_there(target):
        return None
    record = _journal(target, settings, header).check()
    if not record.commit.finished or not _is_whole(target, record):  # what is wrong is found when it is opened
        return None
    if isinstance(target.out, Path):
        shutil.rmtree(parts_folder(target.out), ignore_errors=True)  # of a run killed when all was done
    return record.commit


def _is_whole(target: Target, record: Record) -> bool:
    """Whether a finished output is as it was committed."""
    from blip2cli.outputs.stamp import Stamp

    state = record.commit.state
    if not target.shards:
        return "checksum" in state and Stamp(state.get("size", 0), state["checksum"]).fits(target.out)
    files = target.format.shard_files
    there = sum(path.is_file() for path in target.out.rglob("*"))
    if there != len(record.shards) * len(files):
        return False
    return all(
        Stamp(size, checksum).fits(target.out / name.format(number), head=0)
        for number, stamps in record.shards.items()
        for name, (size, checksum) in zip(files, stamps, strict=True)
    )


def _journal(target: Target, settings: OutputSettings, header: Header) -> Journal:
    kind = Journal if isinstance(target.out, Path) else RemoteJournal
    return kind(target.kept, settings.out or target.out, header)


def _stdout(layout: Layout) -> Output:
    from blip2cli.outputs.stdout import JsonlStream, TableStream

    return TableStream(layout) if sys.stdout.isatty() else JsonlStream(layout)


def _check_sidecar(out: Path) -> None:
    if not isinstance(out, Path):
        raise UsageError(
            f"--format sidecar writes on this machine, and {out} is a URL", "Name a folder, or leave it out."
        )
    if out.exists() and not out.is_dir():
        raise UsageError(f"--format sidecar writes a folder, and {out} is a file", "Name a folder, or leave it out.")


def make_folder(folder: Path) -> None:
    """Make a folder, in one that is there. Raises UsageError."""
    check_writable(folder)
    folder.mkdir(exist_ok=True)


def _check_shards(out: Path, files: Sequence[str]) -> None:
    """See that a folder holds nothing but shards, which alone may be replaced or added to."""
    known = [re.compile(re.escape(name).replace(re.escape("{:05}"), r"\d{5,}")) for name in files]
    for path in sorted(out.rglob("*")) if out.is_dir() else ():
        name = path.relative_to(out).as_posix()
        if not path.is_dir() and not any(pattern.fullmatch(name) for pattern in known):
            raise UsageError(f"{out} holds other files, such as {name}", "Name an empty folder, or a new one.")


def _clear(target: Target) -> None:
    """Remove an output with all that belongs to it, an unfinished retry too, which must not take its place later.

    The hidden file stays, as the run's lock is on it.
    """
    remote = not isinstance(target.out, Path)
    retried = replace(target, out=beside(target.out))
    for each in (target,) if remote else (target, retried):
        _remove(each.out)
        if not remote:
            shutil.rmtree(parts_folder(each.out), ignore_errors=True)
    if not remote:
        retried.kept.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for shard in sorted(path.rglob("*"), key=str, reverse=True):
        if not shard.is_dir():
            shard.unlink()
        elif isinstance(path, Path):  # behind a URL folders are but names
            shard.rmdir()


def beside(out: Path) -> Path:
    """Where the output is written that will take this one's place; a name that nobody gives to a file of theirs."""
    return out.with_name(f".blip2-retry-{out.name}")
