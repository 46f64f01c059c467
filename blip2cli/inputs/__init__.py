"""Where rows come from: one file a kind of source. Here are the formats that are known, and `open_source`."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path

from blip2cli.errors import UsageError, reason
from blip2cli.host import storage
from blip2cli.inputs.columns import ColumnChoice
from blip2cli.inputs.file_format import FileFormat
from blip2cli.inputs.folder import Files, Folder
from blip2cli.inputs.image_formats import install_hint, is_image, read_suffixes, unread_among, unread_summary
from blip2cli.inputs.imagefolder import ImageFolder, metadata_files
from blip2cli.inputs.listing import Listing
from blip2cli.inputs.memory import MemoryTable
from blip2cli.inputs.names import expanded, has_range
from blip2cli.inputs.saved import saved_files
from blip2cli.inputs.source import Source, Sources
from blip2cli.inputs.walk import images_below, matching, walk

__all__ = ["FILE_FORMATS", "ColumnChoice", "Source", "Sources", "format_of", "metadata_in", "open_source"]

FILE_FORMATS = {
    "parquet": FileFormat(
        "blip2cli.inputs.parquet:ParquetManifest", (".parquet",), metadata="blip2cli.inputs.parquet:metadata_of"
    ),
    "jsonl": FileFormat("blip2cli.inputs.jsonl:JsonlManifest", (".jsonl", ".ndjson", ".jsonl.gz", ".jsonl.zst")),
    "csv": FileFormat(
        "blip2cli.inputs.csv:CsvManifest", (".csv", ".tsv", ".csv.gz", ".csv.zst", ".tsv.gz", ".tsv.zst")
    ),
    "arrow": FileFormat(
        "blip2cli.inputs.arrow:ArrowManifest",
        (".arrow", ".feather", ".ipc"),
        metadata="blip2cli.inputs.arrow:metadata_of",
    ),
    "tar": FileFormat(
        "blip2cli.inputs.tar:TarShards", (".tar", ".tar.gz", ".tgz", ".tar.zst"), contents="archive", joins_files=True
    ),
    "zip": FileFormat("blip2cli.inputs.zipped:ZipArchive", (".zip",), contents="archive"),
    "json": FileFormat("blip2cli.inputs.annotations:open_annotations", (".json",), contents="other"),
    "list": FileFormat("blip2cli.inputs.listing:ListFile", (".txt",), contents="other"),
}
"""Name → format. Compressed text is found out by a file's first bytes, so its suffixes only say what is inside."""

BY_SUFFIX = {suffix: file_format for file_format in FILE_FORMATS.values() for suffix in file_format.suffixes}

Opener = Callable[[str, ColumnChoice], Sequence[Source]]

OPENED_AT_ONCE = 16
"""Files that are opened side by side."""

CACHE_PREFIX = "cache-"
"""How the names of files begin that Hugging Face datasets keeps for itself."""


def open_source(
    inputs: Iterable[str | Source | MemoryTable],
    columns: ColumnChoice,
    limit: int | None = None,
    share: tuple[int, int] | None = None,
) -> Sources:
    """The source that the user's INPUT arguments name; sources and tables in memory are taken as they are.

    Raises UsageError for an input that does not exist, holds no images, or is not of a kind that is read.
    """
    columns.check()
    parts: list[Source] = []
    for given in inputs:
        if isinstance(given, str):
            parts += _named(given, columns)
        else:
            parts.append(given.open(columns) if isinstance(given, MemoryTable) else given)
    return Sources(tuple(parts), limit, share)


def suffix_of(name: str) -> str:
    """The suffix of a file or URL in lower case: of two parts where a format has that, else the last part."""
    plain = (name.partition("?")[0] if storage.is_url(name) else name).lower()
    known = [suffix for suffix in BY_SUFFIX if plain.endswith(suffix)]
    return max(known, key=len) if known else Path(plain).suffix


def format_of(name: str, *contents: str) -> FileFormat | None:
    """The format of a file by its name; None where it is not known, or its contents are not among these."""
    file_format = BY_SUFFIX.get(suffix_of(name))
    return file_format if file_format and (not contents or file_format.contents in contents) else None


def metadata_in(name: str) -> Mapping[bytes, bytes]:
    """What the writer of a file has noted in it; nothing where its format has no place for it, or it cannot be read."""
    file_format = format_of(name)
    return {} if file_format is None else file_format.read_metadata(name)


def _named(name: str, columns: ColumnChoice) -> Sequence[Source]:
    """The sources that one INPUT argument names."""
    if name == "-":
        return [Listing()]
    if storage.is_url(name) and not has_range(name):
        try:
            return _at_url(name, columns)
        except OSError as error:
            raise UsageError(f"cannot read {name}: {reason(error)}", "Check the URL and your access.") from None
    if os.path.isdir(name):
        return _in_folder(name, columns)
    if os.path.lexists(name):
        return _in_file(name, columns)
    if has_range(name):
        return _in_range(expanded(name), columns)
    if glob.has_magic(name):
        return _in_pattern(name, columns)
    raise UsageError(
        f"no such input: {name}", "Check the name with ls: a file, a folder, a glob, or - for a list on stdin."
    )


def _in_range(names: Sequence[str], columns: ColumnChoice) -> Sequence[Source]:
    """The inputs that a range stands for; files of a format that joins them are one data set."""
    plain = [name for name in names if not glob.has_magic(name)]
    missing = [name for name in plain if not storage.is_url(name) and not os.path.lexists(name)]
    if missing:
        raise UsageError(f"no such input: {missing[0]}", "All files of a range must exist.")
    first = format_of(names[0])
    if first and first.joins_files and plain == names and all(format_of(name) is first for name in names):
        return [first.open(names[0], columns, *names)]
    return _side_by_side(_named, names, columns)


def _at_url(url: str, columns: ColumnChoice) -> Sequence[Source]:
    """A remote file, pattern or folder; on the web a question mark begins a query."""
    is_pattern = glob.has_magic(url.partition("?")[0] if url.startswith("http") else url)
    if not is_pattern and format_of(url):
        return _in_file(url, columns)
    if not is_pattern and suffix_of(url) in read_suffixes():
        storage.check_package(url)
        return [Files((url,))]
    names = storage.urls_matching(url) if is_pattern else list(storage.urls_below(url))
    if images := tuple(name for name in names if suffix_of(name) in read_suffixes()):
        return [Files(images, unread_among(names))]
    tables = [name for name in names if format_of(name, "table", "archive")]
    if not tables:
        raise UsageError(f"no images found in {url}", "Give an image, a folder, a pattern, or a manifest.")
    return _side_by_side(_in_file, tables, columns)


def _in_folder(name: str, columns: ColumnChoice) -> Sequence[Source]:
    """What a folder is: a saved data set, images with metadata, images, or manifests and archives."""
    if saved := saved_files(name):
        return _side_by_side(_in_file, saved, columns)
    if metadata := metadata_files(name, columns.written):
        own = replace(columns, root=None, imagefolder=True)
        described = Sources(tuple(_side_by_side(_in_file, metadata, own)))
        return [ImageFolder(name, described)] if columns.image_required else described.parts
    if next(images_below(name), None) is None and (files := _manifests_below(name)):
        return _side_by_side(_in_file, files, columns)
    return [Folder(name)]


def _manifests_below(folder: str) -> list[str]:
    """The archives below a folder, or if it has none the tables, in the order of a walk."""
    found = walk(folder, lambda name: format_of(name, "table", "archive") is not None)
    names = [name for name in found if not os.path.basename(name).startswith(CACHE_PREFIX)]
    return [name for name in names if format_of(name, "archive")] or names


def _side_by_side(open_one: Opener, names: Iterable[str], columns: ColumnChoice) -> Sequence[Source]:
    """What is opened by these names, in their order. Opening a URL takes long, and there may be thousands."""
    with ThreadPoolExecutor(OPENED_AT_ONCE) as pool:
        return list(chain.from_iterable(pool.map(open_one, names, repeat(columns))))


def _in_file(name: str, columns: ColumnChoice) -> Sequence[Source]:
    suffix = suffix_of(name)
    if file_format := format_of(name):
        return [file_format.open(name, columns)]
    if suffix in read_suffixes() or suffix == "":
        return [Files((name,))]
    if hint := install_hint(suffix):
        raise UsageError(f"cannot read {name}: {suffix} needs another package", f"Install it: {hint}")
    raise UsageError(f"{name} is neither an image nor a manifest", f"Manifests end in {', '.join(sorted(BY_SUFFIX))}.")


def _in_pattern(pattern: str, columns: ColumnChoice) -> Sequence[Source]:
    """What a glob matches; files of "other" contents only where the pattern ends with their suffix."""
    sources: list[Source] = []
    others: list[str] = []
    for match in matching(pattern):
        name = match.path
        if match.unreadable:
            sources.append(Files((name,)))
        elif os.path.isdir(name):
            sources += _in_folder(name, columns) if "**" not in pattern else ()
        elif format_of(name, "other") and not pattern.lower().endswith(suffix_of(name)):
            continue
        elif is_image(name) or format_of(name):
            sources += _in_file(name, columns)
        else:
            others.append(name)
    unread = unread_among(others)
    if not sources:
        rest = f"; {unread_summary(unread)}" if unread else ""
        raise UsageError(f"no images found: {pattern}{rest}", "Quote the pattern, and check it with ls.")
    return [*sources, Files((), unread)] if unread else sources
