"""Where an output goes: what --out and --format mean together, what is there already, and the lock on it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from blip2cli.errors import UsageError, reason
from blip2cli.host.files import check_apart, check_writable, real_path
from blip2cli.host.storage import is_folder
from blip2cli.outputs.commits import Commit
from blip2cli.outputs.formats import Format
from blip2cli.outputs.journal import hidden_beside, parts_folder, read_journal
from blip2cli.outputs.lock import locked

if TYPE_CHECKING:
    from blip2cli.settings import Job, OutputSettings

STDOUT = Format(opener="blip2cli.outputs.stdout:open_stdout", destination="stream", resumes=False)
"""What rows go to where no output is named."""


OTHER_SUFFIXES = {
    ".txt": "For a text file next to each image, use --format txt without --out; for one file, --out {}.csv.",
    ".json": "For rows, use --out {}.jsonl; for result files of benchmarks, add --format coco or --format vqa.",
    ".npy": "For arrays of features, use --out {} --format npy, which writes a folder.",
    ".npz": "For arrays of features, use --out {} --format npy, which writes a folder.",
    ".tar": "For tar shards, use --out {} --format webdataset, which writes a folder.",
    ".html": "Write rows first, --out {}.jsonl; then: blip2 report {}.jsonl --out {}.html",
    ".xlsx": "Use --out {}.csv, which Excel opens.",
}
"""Suffixes that are not those of a format, and what is meant by them."""


@dataclass(frozen=True)
class Target:
    """Where an output goes.

    Args:
        name: the name of its format.
        format: the format.
        out: the file, or with `shards` the folder, links followed; None for stdout and files beside the images.
        named: the same as the user named it.
        shards: whether `out` is a folder of shards.
    """

    name: str
    format: Format
    out: Path | None = None
    named: Path | None = None
    shards: bool = False

    @property
    def path(self) -> Path:
        """The file or folder of a target that has one."""
        assert self.out is not None, f"{self.name} has no file of its own"
        return self.out

    def described(self, settings: OutputSettings) -> str:
        """The target in words, for --dry-run."""
        if self.format.destination == "stream":
            return self.name
        if self.format.destination == "beside":
            return f"text files in {self.named}" if self.named else "text files next to the images"
        shards = f" in shards of {settings.shard_size:,} rows" if self.shards else ""
        instead = ", replacing the output that exists" if settings.overwrite and self.path.exists() else ""
        return f"{self.path} ({self.name}{shards}{instead})"

    @property
    def is_remote(self) -> bool:
        """Whether it is behind a URL."""
        return self.out is not None and not isinstance(self.out, Path)

    @property
    def journal_path(self) -> Path:
        """The hidden file that says what is committed: beside the output, never in a folder that others read."""
        if self.format.index:
            return hidden_beside(self.path.parent, self.path.name)
        return hidden_beside(self.path)

    @property
    def retried(self) -> Target:
        """Where --retry-errors writes before it replaces this one; nobody gives a file of theirs this name."""
        return replace(self, out=self.path.with_name(f".blip2-retry-{self.path.name}"))

    @property
    def written_folder(self) -> str | None:
        """The folder whose index the run writes itself, and must not read."""
        return str(self.named) if self.format.index else None

    @property
    def files_among_images(self) -> list[Path]:
        """The files of rows in a folder that is also read."""
        if self.named is None or self.is_remote or not self.format.into_images:
            return []
        beside = self.path if self.format.index else self.named
        files = [self.path] if self.format.index else []
        return [*files, beside.with_name(self.format.errors_file.format(beside.name))]

    def is_there(self) -> bool:
        """Whether the output itself is there; a file or folder without anything in it is not.

        But an empty file is there where that is what was committed of rows that were all left out. Raises UsageError
        for a damaged journal beside an empty file.
        """
        if not self.format.has_journal:
            return False
        if self.shards:
            return self.path.is_dir() and any(not path.is_dir() for path in self.path.rglob("*"))
        if not self.path.exists():
            return False
        return self.path.stat().st_size > 0 or self._is_committed_empty()

    def _is_committed_empty(self) -> bool:
        """Whether rows are committed that made a file of no bytes."""
        record = read_journal(self.journal_path)
        return record is not None and record.commit.rows > 0 and record.commit.state.get("size") == 0

    def is_begun(self) -> bool:
        """Whether there is something to lose: an output, or committed parts of one that was never there.

        An output that was there and is gone was removed by its user. Raises UsageError for a damaged journal of parts.
        """
        if self.is_there():
            return True
        if not self.format.has_journal or self.is_remote or not parts_folder(self.path).is_dir():
            return False
        record = read_journal(self.journal_path)
        if record is None or not record.commit.rows or record.commit.finished:
            return False
        return not self.shards or (self.path.is_dir() and not record.commit.state.get("shard", 0))


def target_of(settings: OutputSettings, formats: Mapping[str, Format]) -> Target:
    """What --out and --format mean together. Raises UsageError where they, or other options, do not fit.

    A symbolic link stands for what it leads to.
    """
    target = _target(settings, formats)
    known = target.format
    if settings.existing is not None and not known.adds_to_existing:
        names = " or ".join(name for name, entry in formats.items() if entry.adds_to_existing)
        raise UsageError(f"--existing needs --format {names}", "Other outputs have --resume and --overwrite.")
    if settings.existing == "append" and target.out is None:
        raise UsageError("--existing append needs --out", "The journal next to that folder records what was appended.")
    if settings.retry_errors and not known.has_journal and known.resumes:
        raise no_retry(target)
    if settings.continues and not known.resumes:
        given = "--update" if settings.update else "--resume"
        raise UsageError(f"{given} needs --out", "Rows written to stdout cannot be read back; give a file.")
    if settings.update:
        _check_update(target, settings)
    return target


def _check_update(target: Target, settings: OutputSettings) -> None:
    """Check that it can be found out which rows an output has. Raises UsageError."""
    known = target.format
    if known.no_update:
        raise UsageError(f"--update is not for --format {target.name}", known.no_update)
    if target.is_remote:
        raise UsageError(
            "--update is not for remote outputs", f"Copy the folder and its {target.journal_path.name} here first."
        )
    if settings.existing in ("append", "overwrite"):
        raise UsageError(
            f"--update cannot be used with --existing {settings.existing}",
            "It skips images that have a text file; leave out --existing.",
        )


def no_retry(target: Target) -> UsageError:
    """What is said of --retry-errors where rows cannot be read back."""
    return UsageError(f"--retry-errors is not for --format {target.name}", target.format.no_retry)


def _target(settings: OutputSettings, formats: Mapping[str, Format]) -> Target:
    named, name = settings.out, settings.format
    known = formats[name] if name is not None else None
    if named is None:
        if known is None:
            return Target("stdout", STDOUT)
        if known.destination == "beside":
            return Target(name or "", known)
        raise UsageError(f"--format {name} needs --out", known.wanted_out)
    if known is not None and known.destination == "beside":
        return Target(name or "", known, _folder_of_texts(named, name or "", formats), named)
    out = real_path(named) if isinstance(named, Path) else named
    if _is_folder(out) or not named.suffix:
        return _folder_target(out, named, name or "parquet", formats)
    if out.suffix != named.suffix:
        raise UsageError(f"{named} leads to {out}, which has another suffix", "Give the file itself.")
    return _file_target(out, named, name, formats)


def _folder_of_texts(named: Path, name: str, formats: Mapping[str, Format]) -> Path:
    hint = "Give a folder, or leave it out."
    names_file = named.suffix.lower() in OTHER_SUFFIXES or _format_of_suffix(named, formats) is not None
    if names_file and not _is_folder(named):
        raise UsageError(f"--format {name} writes a text file for each image, and {named} is one file", hint)
    if not isinstance(named, Path):
        raise UsageError(f"--format {name} writes on this machine, and {named} is a URL", hint)
    if named.exists() and not named.is_dir():
        raise UsageError(f"--format {name} writes a folder, and {named} is a file", hint)
    return real_path(named)


def _folder_target(out: Path, named: Path, name: str, formats: Mapping[str, Format]) -> Target:
    known = formats[name]
    if known.destination == "index":
        return Target(name, known, out / known.index, named)
    if known.destination == "file" and not known.suffixes:
        raise UsageError(f"--format {name} is one file, and {out} is a folder", f"Give a file: {out}.json")
    return Target(name, known, out, named, shards=True)


def _file_target(out: Path, named: Path, name: str | None, formats: Mapping[str, Format]) -> Target:
    by_suffix = _format_of_suffix(out, formats)
    chosen = name or by_suffix
    if chosen is None and out.suffix.lower() in OTHER_SUFFIXES:
        hint = OTHER_SUFFIXES[out.suffix.lower()].replace("{}", str(named.with_suffix("")))
        raise UsageError(f"the name of {named} does not say which format is meant", hint)
    if chosen is None:
        suffixes = ", ".join(suffix for entry in formats.values() for suffix in entry.suffixes)
        raise UsageError(
            f"cannot tell the format of {out}",
            f"End its name in one of {suffixes}, or name a folder, without a suffix.",
        )
    known = formats[chosen]
    is_index = known.destination == "index" and out.name == known.index
    if known.destination in ("shards", "index") and not is_index:
        raise UsageError(f"--format {name} writes a folder, and {out} is a file", "Give a folder, without a suffix.")
    if by_suffix not in (chosen, None) and not is_index:
        raise UsageError(
            f"--format {name} cannot be used with {out}", "Its suffix means another format; leave out one of them."
        )
    return Target(chosen, known, out, named)


def _format_of_suffix(out: Path, formats: Mapping[str, Format]) -> str | None:
    name = out.name.lower()
    for known, entry in formats.items():
        if entry.suffixes and name.endswith(entry.suffixes):
            return known
    return None


def _is_folder(out: Path) -> bool:
    try:
        return out.is_dir() if isinstance(out, Path) else is_folder(str(out))
    except OSError as error:
        raise UsageError(f"cannot reach {out}: {reason(error)}", "Check the name and your access.") from None


def check_inputs(target: Target, job: Job, inputs: Iterable[object]) -> None:
    """Check that nothing that the job writes replaces an input, or another output. Raises UsageError.

    A folder that is read may also be written to, by formats that are made for that.
    """
    outputs = job.side_outputs
    if isinstance(target.named, Path) and not target.format.into_images:
        outputs = {"--out": target.named, **outputs}
    names = list(inputs)
    check_apart(outputs, names)
    check_apart({str(path): path for path in target.files_among_images}, names)


def check_places(target: Target, settings: OutputSettings) -> None:
    """Check that output and summary can be written, before anything is changed. Raises UsageError."""
    summary = settings.summary
    for path in (settings.out, summary):
        if isinstance(path, Path):
            check_writable(path)
    if summary is None:
        return
    if summary.is_dir():
        raise UsageError(f"{summary} is a folder", "Give a file for --summary.")
    if target.shards and not target.is_remote:
        inside = os.path.relpath(os.path.realpath(summary), os.path.realpath(target.path))
        if not inside.startswith(".."):
            raise UsageError(f"--summary {summary} is in the folder of the shards", "Choose another folder.")


def check_output(target: Target, settings: OutputSettings, task: str, resumes: bool = True) -> None:
    """Check that the output can be written, before anything slow is done. Raises UsageError.

    Args:
        target: where the output goes.
        settings: what was asked of it.
        task: the task's name.
        resumes: whether the task's runs can be resumed.
    """
    check_places(target, settings)
    known = target.format
    if known.tasks and task not in known.tasks:
        raise UsageError(f"--format {target.name} is not for {task}", f"It is for {', '.join(known.tasks)}.")
    if target.is_remote:
        _check_remote(target, settings)
    if target.shards:
        _check_shards(target.path, known.shard_files)
    if not settings.continues and not settings.overwrite and target.is_begun():
        state = "exists" if target.is_there() else "was started and not finished"
        go_on = "--resume to continue it, " if resumes else ""
        if resumes and not known.no_update and not target.is_remote:
            go_on += "--update to add new rows, "
        shown = target.path if known.index else settings.out
        raise UsageError(f"{shown} {state}", f"Use {go_on}--overwrite to replace it, or choose another name.")


def _check_remote(target: Target, settings: OutputSettings) -> None:
    if not target.shards:
        raise UsageError(
            f"{target.path} is a file, and remote outputs are folders",
            "Leave out the suffix, and say --format.",
        )
    if settings.retry_errors:
        raise UsageError(
            "--retry-errors is not for remote outputs",
            f"Copy the folder and its {target.journal_path.name} here first.",
        )


def _check_shards(out: Path, files: Sequence[str]) -> None:
    """Check that a folder holds nothing but shards, which alone may be replaced or added to."""
    if not out.is_dir():
        return
    known = [re.compile(re.escape(name).replace(re.escape("{:05}"), r"\d{5,}")) for name in files]
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if not path.is_dir() and not any(pattern.fullmatch(name) for pattern in known):
            raise UsageError(f"{out} holds other files, such as {name}", "Give an empty folder, or a new one.")


def make_folder(folder: Path) -> None:
    """Make a folder, in one that is there. Raises UsageError."""
    check_writable(folder)
    folder.mkdir(exist_ok=True)


@contextmanager
def locked_output(target: Target, keep: bool = True) -> Iterator[None]:
    """Keep other runs off an output while inside; nothing where it is not a file or folder on this machine.

    The hidden file is removed at the end if there is nothing to resume, or with `keep` false. Raises
    UsageError.
    """
    if target.named is None or target.is_remote:
        yield
        return
    out = real_path(target.path)
    journal_path = target.journal_path
    with locked(journal_path, out, target.named):
        try:
            yield
        finally:
            if not keep or not _is_of_use(target):
                journal_path.unlink(missing_ok=True)
                shutil.rmtree(parts_folder(out), ignore_errors=True)


def _is_of_use(target: Target) -> bool:
    """Whether the hidden file has something to resume: a commit, or rows that were written without one."""
    try:
        record = read_journal(target.journal_path)
    except UsageError:  # it is left as it is
        return True
    return record is not None and (record.commit != Commit() or target.is_there())
