"""Where rows go: one file a format, and `open_output`, which chooses by the suffix of --out."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from blip2cli.errors import UsageError
from blip2cli.host.storage import is_folder
from blip2cli.outputs.journal import Commit, Journal, RemoteJournal, begun, check_ordinary, committed, path_of
from blip2cli.records import Column, Result

if TYPE_CHECKING:
    import pyarrow as pa

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
        module, _, cls = self.cls.partition(":")
        made: Callable[[Path, Layout, Any], Output] = getattr(import_module(module), cls)
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

RESERVED = ("image", "error")


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
class Layout:
    """The columns of an output: `image`, the carried ones, the task's, `error`.

    `carried` maps a manifest's column to its name in the output, which differs where the task has a column of that
    name. `schema` gives the carried columns' Arrow types, `metadata` the settings of the run. `late`
    counts, by kind, the rows that failed only when they were written.
    """

    carried: Mapping[str, str]
    columns: tuple[Column, ...]
    schema: Callable[[], pa.Schema]
    metadata: Mapping[str, Any]
    late: Counter[str] = field(default_factory=Counter)

    def failed(self, error: str) -> str:
        """Note an error that came up in writing a row; gives it back."""
        self.late[error.partition(":")[0]] += 1
        return error

    def record(self, result: Result) -> dict[str, Any]:
        """A result as names and values, in the order of the columns."""
        row = result.row
        record: dict[str, Any] = {"image": row.name}
        record.update((shown, row.columns.get(name)) for name, shown in self.carried.items())
        record.update((column.name, value) for column, value in zip(self.columns, result.values, strict=True))
        record["error"] = result.error
        return record

    def value(self, result: Result, *names: str) -> Any:
        """The value of the first of these columns that the task has."""
        values = {column.name: value for column, value in zip(self.columns, result.values, strict=True)}
        return next(values[name] for name in names if name in values)


def written(results: Sequence[Result]) -> list[Result]:
    """Those of the results that are not left out."""
    return [result for result in results if not result.left_out]


def carried_names(names: Sequence[str], columns: tuple[Column, ...]) -> dict[str, str]:
    """Names of carried columns in the output: `input_NAME` where NAME is the output's own."""
    own = {*RESERVED, *(column.name for column in columns)}
    shown = {name: name for name in names}
    for name in own.intersection(names):
        while shown[name] in own or shown[name] in names:
            shown[name] = f"input_{shown[name]}"
    return shown


@dataclass(frozen=True)
class Target:
    """Where an output goes, settled: `out` is the file, or with `shards` the folder; `name` names its format."""

    name: str
    out: Path
    shards: bool

    @property
    def format(self) -> Format:
        return FORMATS[self.name]


def target_of(settings: OutputSettings) -> Target | None:
    """What --out and --format mean together; None for stdout. Raises UsageError where they do not fit."""
    out, name = settings.out, settings.format
    if name == "sidecar":
        return None  # which has no file of its own
    if out is None:
        if name is not None:
            raise UsageError(f"--format {name} needs --out", "Name a file or a folder.")
        return None
    if _is_folder(out) or not out.suffix:
        name = name or "parquet"
        if FORMATS[name].layout == "index":
            return Target(name, out / FORMATS[name].index, shards=False)
        if FORMATS[name].layout == "file" and not FORMATS[name].suffixes:
            raise UsageError(f"--format {name} is one file, and {out} is a folder", f"Name a file: {out}.json")
        return Target(name, out, shards=True)
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
        raise UsageError(f"cannot reach {out}: {error.strerror or error}", "Check the name and your access.") from None


def check_output(settings: OutputSettings, task: str, resumes: bool = True) -> None:
    """See that the output can be written, before anything slow is done. Raises UsageError.

    Args:
        settings: the output.
        task: the task's name.
        resumes: whether the task's runs can be resumed.
    """
    for path in (settings.out, settings.summary):
        if isinstance(path, Path):
            _check_folder(path)
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
        raise UsageError("--retry-errors is not for remote outputs", "Copy the folder and its .journal here first.")
    if target.shards:
        _check_shards(out, target.format.shard_files)
    if begun(out) and not settings.resume and not settings.overwrite:
        state = "exists" if out.exists() else "was begun and not finished"
        go_on = "--resume to go on with it, " if resumes else ""
        raise UsageError(f"{out} {state}", f"Use {go_on}--overwrite to replace it, or another name.")


def open_output(settings: OutputSettings, layout: Layout, fingerprint: Mapping[str, Any]) -> Output:
    """The output that the settings name, ready to take rows, what an earlier run left torn repaired."""
    target = target_of(settings)
    if settings.format == "sidecar":
        from blip2cli.outputs.sidecar import SidecarOutput

        return SidecarOutput(settings, layout, _stdout(layout) if settings.out is None else None, fingerprint)
    if target is None:
        return _stdout(layout)
    out, journal, make = target.out, open_journal(target, settings, fingerprint), target.format.make
    if not target.shards:
        output: Output = make(out, layout, journal)
        return output
    if not isinstance(out, Path):
        from blip2cli.outputs.remote import RemoteShards

        return RemoteShards(out, layout, journal, make, target.format.shard_files, settings.shard_size)
    from blip2cli.outputs.shards import ShardedOutput

    return ShardedOutput(out, layout, journal, make, target.format.shard_files, settings.shard_size)


def open_journal(target: Target, settings: OutputSettings, fingerprint: Mapping[str, Any]) -> Journal:
    """The output's journal: taken up, or begun in place of an output there may be. Raises UsageError."""
    journal = _journal(target, settings, fingerprint)
    if begun(target.out) and settings.resume:
        journal.resume(target.out)
    else:
        _clear(target.out)
        journal.start()
    return journal


def already_done(settings: OutputSettings, fingerprint: Mapping[str, Any]) -> Commit:
    """What a run with these settings would go on behind; nothing is changed. Raises UsageError as resuming would."""
    target = target_of(settings)
    if target is None or not settings.resume or not begun(target.out):
        return Commit()
    _journal(target, settings, fingerprint).check(target.out)
    return committed(target.out)


def finished(settings: OutputSettings, fingerprint: Mapping[str, Any]) -> Commit | None:
    """What is committed, where it is whole and is to be resumed. Raises UsageError for other settings than it had.

    Cheaper than to open it: a job that is started again and again finds out soon that it is done.
    """
    target = target_of(settings)
    if target is None or not settings.resume or not target.out.exists():
        return None
    state, whole = committed(target.out).state, committed(target.out).finished
    if target.shards:
        files = sum(path.is_file() for path in target.out.rglob("*"))
        there = files == (state.get("shard", -1) + 1) * len(target.format.shard_files)
    else:
        there = target.out.stat().st_size == state.get("size", target.out.stat().st_size)
    if not (whole and there):  # what is wrong is found when it is opened
        return None
    journal = _journal(target, settings, fingerprint)
    journal.resume(target.out)
    if isinstance(target.out, Path):
        shutil.rmtree(parts_folder(target.out), ignore_errors=True)  # of a run killed when all was done
    return journal.commit


def _journal(target: Target, settings: OutputSettings, fingerprint: Mapping[str, Any]) -> Journal:
    """The journal of the output, with all that its rows and their places depend on."""
    cut = {"format": target.name, "shard_size": settings.shard_size} if target.shards else {}
    kind = Journal if isinstance(target.out, Path) else RemoteJournal
    return kind(target.out, {**fingerprint, **cut})


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


def _check_folder(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise UsageError(f"cannot write {path}: there is no folder {folder}", f"Make it: mkdir -p {folder}")
    check_ordinary(path)
    if path.is_dir() and not os.access(path, os.W_OK):
        raise UsageError(f"cannot write {path}: it is not writable", "Choose another folder, or change its mode.")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write {path}: {folder} is not writable", "Choose another folder, or change its mode.")


def make_folder(folder: Path) -> None:
    """Make a folder, in one that is there. Raises UsageError."""
    _check_folder(folder)
    folder.mkdir(exist_ok=True)


def _check_shards(out: Path, files: Sequence[str]) -> None:
    """See that a folder holds nothing but shards, which alone may be replaced or added to."""
    known = [re.compile(re.escape(name).replace(re.escape("{:05}"), r"\d{5,}")) for name in files]
    for path in sorted(out.rglob("*")) if out.is_dir() else ():
        name = path.relative_to(out).as_posix()
        if not path.is_dir() and not any(pattern.fullmatch(name) for pattern in known):
            raise UsageError(f"{out} holds other files, such as {name}", "Name an empty folder, or a new one.")


def _clear(out: Path) -> None:
    """Remove an output with all that belongs to it, an unfinished retry too, which must not take its place later."""
    remote = not isinstance(out, Path)
    for path in (out,) if remote else (out, beside(out)):
        if path.is_dir():
            for shard in sorted(path.rglob("*"), key=str, reverse=True):
                if not shard.is_dir():
                    shard.unlink()
                elif not remote:  # where folders are but names
                    shard.rmdir()
        else:
            path.unlink(missing_ok=True)
        path_of(path).unlink(missing_ok=True)
        if not remote:
            shutil.rmtree(parts_folder(path), ignore_errors=True)


def beside(out: Path) -> Path:
    """Where the output is written that will take this one's place; a name that nobody gives to a file of theirs."""
    return out.with_name(f".blip2-retry-{out.name}")


def parts_folder(out: Path) -> Path:
    """Where a format keeps committed parts until they are joined."""
    return out.with_name(out.name + ".parts")
