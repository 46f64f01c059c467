"""Where rows come from: one file a kind of source, and `open_source`, which puts several together."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from blip2cli.errors import UsageError
from blip2cli.host import storage
from blip2cli.host.imports import load_object
from blip2cli.inputs.encoding import check_encoding
from blip2cli.inputs.folder import Files, Folder, images_below, matching, walk
from blip2cli.inputs.formats import install_hint, is_image, note_unread, read_suffixes, told
from blip2cli.records import Row

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

MANIFESTS = {
    ".parquet": "blip2cli.inputs.parquet:ParquetManifest",
    ".jsonl": "blip2cli.inputs.jsonl:JsonlManifest",
    ".ndjson": "blip2cli.inputs.jsonl:JsonlManifest",
    ".csv": "blip2cli.inputs.csv:CsvManifest",
    ".tsv": "blip2cli.inputs.csv:CsvManifest",
    ".arrow": "blip2cli.inputs.arrow:ArrowManifest",
    ".feather": "blip2cli.inputs.arrow:ArrowManifest",
    ".ipc": "blip2cli.inputs.arrow:ArrowManifest",
    ".json": "blip2cli.inputs.annotations:open_annotations",
    ".txt": "blip2cli.inputs.listing:ListFile",
    ".tar": "blip2cli.inputs.tar:TarShards",
    ".tar.gz": "blip2cli.inputs.tar:TarShards",
    ".tgz": "blip2cli.inputs.tar:TarShards",
    ".tar.zst": "blip2cli.inputs.tar:TarShards",
    ".zip": "blip2cli.inputs.zipped:ZipArchive",
    ".jsonl.gz": "blip2cli.inputs.jsonl:JsonlManifest",
    ".jsonl.zst": "blip2cli.inputs.jsonl:JsonlManifest",
    ".csv.gz": "blip2cli.inputs.csv:CsvManifest",
    ".csv.zst": "blip2cli.inputs.csv:CsvManifest",
    ".tsv.gz": "blip2cli.inputs.csv:CsvManifest",
    ".tsv.zst": "blip2cli.inputs.csv:CsvManifest",
}
"""Suffix → class of the source that reads such a manifest. A class is made from (name as typed, ColumnChoice)."""

TABLES = tuple(
    ".parquet .jsonl .ndjson .jsonl.gz .jsonl.zst .csv .csv.gz .csv.zst .tsv .tsv.gz .tsv.zst "
    ".arrow .feather .ipc".split()
)
"""Those that a folder may be made of. Archives are too."""

NAMED_ONLY = (".json", ".txt")
"""Those that are read only where they are named, or a pattern ends so: others of that name may be anything."""

RANGE = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{},]*(?:,[^{},]*)+))\}")
"""{00000..00099} or {a,b} in a name."""

MOST_NAMES = 1_000_000
"""Names that a range may stand for."""

OPENED_AT_ONCE = 16
"""Files that are opened side by side."""

CACHED = "cache-"
"""What the names of files begin with that Hugging Face datasets keeps for itself."""


class Source(Protocol):
    """Yields rows in a fixed order, the same in every run."""

    def rows(self, start: int = 0) -> Iterator[Row]:
        """The rows from the start-th on; their `index` is left at 0 for `Sources` to set."""

    def count(self) -> int | None:
        """How many rows there are, None where only reading tells."""

    def schema(self) -> pa.Schema:
        """Names and types of the columns that are carried through."""

    def column_names(self) -> list[str]:
        """Names of the columns that are carried through; cheaper than `schema`."""


@runtime_checkable
class CountsUnread(Protocol):
    """A source that comes upon files which it does not read."""

    def unread(self) -> Counter[str]:
        """How many there were, by suffix, when the source was last counted, or read to its end."""


@runtime_checkable
class Measurable(Protocol):
    """A source that can tell what the values of a column fit into."""

    def measured(self, name: str) -> pa.Field:
        """The field of a carried column, marked as `fields` has it; all its values are read."""


@dataclass(frozen=True)
class ColumnChoice:
    """Which manifest columns mean something: the image's, and the text's (a question, say), None where none is read.

    `text_required` makes a manifest without the text column an error. Image paths start from `root`, or from the
    manifest's own folder; URLs among them are fetched only with `allow_remote`, from private networks too with
    `allow_private`. With `imagefolder` the image's column is `file_name`, or the only one that ends so. A metadata
    file in the folder `written` is not read: the run itself writes it. Text that does not say its encoding by a
    byte-order mark is in `encoding`, or where that is None in UTF-8.
    """

    image: str | None = None
    text: str | None = None
    text_required: bool = False
    image_required: bool = True
    root: str | None = None
    allow_remote: bool = False
    allow_private: bool = False
    imagefolder: bool = False
    written: str | None = None
    encoding: str | None = None


@dataclass(frozen=True)
class Counted:
    """A source whose rows have been counted by reading them."""

    source: Source
    number: int

    def rows(self, start: int = 0) -> Iterator[Row]:
        return self.source.rows(start)

    def count(self) -> int:
        return self.number

    def schema(self) -> pa.Schema:
        return self.source.schema()

    def column_names(self) -> list[str]:
        return self.source.column_names()


@dataclass(frozen=True)
class Sources:
    """Several sources as one, in the order in which they were given.

    `share` (i, n), i counted from 1, leaves only the i-th of n shares of the rows: a stretch of them where their number
    is known, so that the shares one after the other are the input; else every n-th row.
    """

    parts: tuple[Source, ...]
    limit: int | None = None
    share: tuple[int, int] | None = None

    def rows(self, start: int = 0, before: str | None = None) -> Iterator[Row]:
        """All rows from the start-th on, numbered from 0 throughout.

        Raises UsageError where the row before the start-th is not the one named: the input is not what it was.
        """
        first, stop, step = self._share()
        done = max(start - 1, 0)
        at = first + done * step
        shared = islice(self._rows(at), 0, None if stop is None else max(stop - at, 0), step)
        every = enumerate(shared, done)
        if start:
            passed = next(every, None)
            _same(passed[1].name if passed else "missing", before, start)
        rest = every if self.limit is None else islice(every, max(self.limit - start, 0))
        return (replace(row, index=index) for index, row in rest)

    def stretch(self, first: int, stop: int) -> Iterator[Row]:
        """The rows from the first-th on to that before the stop-th, numbered as `rows` numbers them."""
        begin, _, step = self._share()
        rows = islice(self._rows(begin + first * step), 0, None, step)
        return (replace(row, index=index) for index, row in zip(range(first, stop), rows, strict=False))

    def apart(self) -> Sources:
        """The same rows, from more parts where one of them stands for several files."""
        pieces = [getattr(part, "apart", lambda part=part: (part,))() for part in self.parts]
        return replace(self, parts=tuple(piece for some in pieces for piece in some))

    def counted(self, counts: Iterable[int]) -> Sources:
        """The same rows, where the numbers of those parts that do not know theirs are given, in their order."""
        number = iter(counts)
        parts = (part if part.count() is not None else Counted(part, next(number)) for part in self.parts)
        return replace(self, parts=tuple(parts))

    def _rows(self, start: int) -> Iterator[Row]:
        """The rows from the start-th on; what lies before is not read where its number is known."""
        for part in self.parts:
            count = part.count() if start else None
            if start and count is None:
                rows = part.rows(0)
                start -= sum(1 for _ in islice(rows, start))
                yield from rows
            elif count is not None and count <= start:
                start -= count
            else:
                yield from part.rows(start)
                start = 0

    def count(self) -> int | None:
        first, stop, _ = self._share()
        total = stop - first if stop is not None else self._count() if self.share is None else None
        return total if total is None or self.limit is None else min(total, self.limit)

    def _count(self) -> int | None:
        counts = [part.count() for part in self.parts]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def _share(self) -> tuple[int, int | None, int]:
        """The numbers of the rows that are read: the first, that behind the last where it is known, and the step."""
        if self.share is None:
            return 0, None, 1
        (number, of), total = self.share, self._count()
        if total is None:
            return number - 1, None, of
        return total * (number - 1) // of, total * number // of, 1

    def unread(self) -> Counter[str]:
        """Files that are not read, by suffix, as far as the parts have been counted or read."""
        total: Counter[str] = Counter()
        for part in self.parts:
            if isinstance(part, CountsUnread):
                total += part.unread()
        return total

    def column_names(self) -> list[str]:
        return list(dict.fromkeys(name for part in self.parts for name in part.column_names()))

    def schema(self) -> pa.Schema:
        """The carried columns of all parts; a column that no type holds exactly is a string of JSON.

        Where it depends on the values of a column whether a type holds them, they are read.
        """
        import pyarrow as pa

        from blip2cli.inputs.fields import doubtful, merged_fields

        schemas = [part.schema() for part in self.parts]
        names = doubtful(schemas)
        for at, part in enumerate(self.parts) if names else ():
            if isinstance(part, Measurable):
                schemas[at] = pa.schema(
                    [part.measured(field.name) if field.name in names else field for field in schemas[at]]
                )
        return pa.schema(list(merged_fields(schemas).values()))


def _same(name: str, before: str | None, number: int) -> None:
    if name != before:
        raise UsageError(
            f"the input has changed: row {number} was {before}, is {name}",
            "Give the input of the run that is resumed, or --overwrite.",
        )


def open_source(
    inputs: Iterable[str | Source],
    columns: ColumnChoice,
    limit: int | None = None,
    share: tuple[int, int] | None = None,
) -> Sources:
    """The source that the user's INPUT arguments name; what is a source already is taken as it is.

    Raises UsageError for an input that does not exist, holds no images, or is not of a kind that is read.
    """
    check_encoding(columns.encoding)
    if columns.root is not None and not storage.is_url(columns.root) and not os.path.isdir(columns.root):
        raise UsageError(f"no such folder: --image-root {columns.root}", "Image paths of manifests start from it.")
    parts = [
        source for given in inputs for source in (_sources_of(given, columns) if isinstance(given, str) else (given,))
    ]
    return Sources(tuple(parts), limit, share)


def _sources_of(name: str, columns: ColumnChoice) -> Iterator[Source]:
    from blip2cli.inputs.listing import Listing

    if name == "-":
        yield Listing()
    elif storage.is_url(name) and not RANGE.search(name):
        yield from _url_sources(name, columns)
    elif os.path.isdir(name):
        yield from _folder_sources(name, columns)
    elif os.path.lexists(name):
        yield _file_source(name, columns)
    elif (names := expanded(name)) != [name]:
        yield from _range_sources(names, columns)
    elif glob.has_magic(name):
        yield from _glob_sources(name, columns)
    else:
        raise UsageError(
            f"no such input: {name}", "Check the name with ls: a file, a folder, a glob, or - for a list on stdin."
        )


def suffix_of(name: str) -> str:
    """The suffix of a file by which it is known, in lower case; of two parts where that is one in MANIFESTS."""
    plain = (name.partition("?")[0] if storage.is_url(name) else name).lower()
    ends = [suffix for suffix in MANIFESTS if plain.endswith(suffix)]
    return max(ends, key=len) if ends else Path(plain).suffix


def expanded(name: str) -> list[str]:
    """The names that a pattern with {00000..00099} or {a,b} stands for, as WebDataset has it."""
    found = RANGE.search(name)
    if found is None:
        return [name]
    words = found[3].split(",") if found[3] is not None else _numbers(found[1], found[2])
    starts = [f"{name[: found.start()]}{word}" for word in words]
    ends = expanded(name[found.end() :])
    if len(starts) * len(ends) > MOST_NAMES:
        raise UsageError(f"{name} stands for more than {MOST_NAMES:,} names", "Give fewer at a time.")
    return [start + end for start in starts for end in ends]


def _numbers(first: str, last: str) -> list[str]:
    if int(last) - int(first) >= MOST_NAMES:
        raise UsageError(f"{{{first}..{last}}} stands for more than {MOST_NAMES:,} names", "Give fewer at a time.")
    width = len(first) if first.startswith("0") else 0
    return [str(number).zfill(width) for number in range(int(first), int(last) + 1)]


def _range_sources(names: list[str], columns: ColumnChoice) -> Iterator[Source]:
    """The inputs that a range stands for; tar archives are one data set."""
    gone = next(
        (name for name in names if not storage.is_url(name) and not glob.has_magic(name) and not os.path.lexists(name)),
        None,
    )
    if gone is not None:
        raise UsageError(f"no such input: {gone}", "Ranges must be there whole.")
    if all(MANIFESTS.get(suffix_of(name)) == MANIFESTS[".tar"] and not glob.has_magic(name) for name in names):
        from blip2cli.inputs.tar import TarShards

        yield TarShards(names[0], columns, tuple(names))
    else:
        for sources in _side_by_side(lambda name: list(_sources_of(name, columns)), names):
            yield from sources


def _url_sources(url: str, columns: ColumnChoice) -> Iterator[Source]:
    """A remote file, pattern or folder; on the web a question mark begins a query."""
    pattern = glob.has_magic(url.partition("?")[0] if url.startswith("http") else url)
    try:
        if suffix_of(url) in MANIFESTS and not pattern:
            yield _file_source(url, columns)
        elif suffix_of(url) in read_suffixes() and not pattern:
            storage.check_package(url)
            yield Files((url,))
        else:
            found = storage.matching(url) if pattern else list(storage.walk(url))
            images = tuple(name for name in found if suffix_of(name) in read_suffixes())
            passed_over: Counter[str] = Counter()
            for name in found:
                if not is_image(name):
                    note_unread(passed_over, name)
            tables = [name for name in found if suffix_of(name) in MANIFESTS and suffix_of(name) not in NAMED_ONLY]
            if not images and not tables:
                raise UsageError(f"no images found in {url}", "Give an image, a folder, a pattern, or a manifest.")
            yield from [Files(images, passed_over)] if images else _file_sources(tables, columns)
    except OSError as error:
        raise UsageError(f"cannot read {url}: {error.strerror or error}", "Check the URL and your access.") from None


def _folder_sources(name: str, columns: ColumnChoice) -> Iterator[Source]:
    """What a folder is: a saved data set, images with metadata, images, or manifests and archives."""
    from blip2cli.inputs.imagefolder import ImageFolder, metadata_files
    from blip2cli.inputs.saved import saved_files

    if saved := saved_files(name):
        yield from _file_sources(saved, columns)
    elif metadata := metadata_files(name, columns.written):
        beside = replace(columns, root=None, imagefolder=True)
        described = Sources(tuple(_file_source(file, beside) for file in metadata))
        yield from [ImageFolder(name, described)] if columns.image_required else described.parts
    elif next(images_below(name), None) is None and (files := _manifests_below(name)):
        yield from _file_sources(files, columns)
    else:
        yield Folder(name)


def _manifests_below(folder: str) -> list[str]:
    """The archives below a folder, or where it has none the tables, in the order of a walk."""
    found = list(walk(folder, lambda name: suffix_of(name) in MANIFESTS and not name.startswith(CACHED)))
    archives = [file for file in found if suffix_of(file) not in (*TABLES, *NAMED_ONLY)]
    return archives or [file for file in found if suffix_of(file) in TABLES]


def _file_source(name: str, columns: ColumnChoice) -> Source:
    suffix = suffix_of(name)
    if suffix in MANIFESTS:
        _check_regular(name)
        source: Source = load_object(MANIFESTS[suffix])(name, columns)
        return source
    if suffix in read_suffixes() or suffix == "":
        return Files((name,))
    if hint := install_hint(suffix):
        raise UsageError(f"cannot read {name}: {suffix} needs another package", f"Install it: {hint}")
    known = ", ".join(sorted(MANIFESTS))
    raise UsageError(f"{name} is neither an image nor a manifest", f"Manifests end in {known}.")


def _check_regular(name: str) -> None:
    """See that a manifest is a file. Raises UsageError for a pipe or a device, which cannot be read twice."""
    if storage.is_url(name):
        return
    try:
        mode = os.stat(name).st_mode
    except OSError:
        return  # which opening it tells
    if not stat.S_ISREG(mode):
        raise UsageError(
            f"{name} is not a regular file, but {_kind_of_file(mode)}",
            "Write its content to a file; a list of paths may also come from stdin: blip2 caption -",
        )


def _kind_of_file(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a folder" if stat.S_ISDIR(mode) else "a device"


def _file_sources(names: Iterable[str], columns: ColumnChoice) -> list[Source]:
    return _side_by_side(lambda name: _file_source(name, columns), names)


def _side_by_side(opened: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """What is opened by these names, in their order. One takes long behind a URL, and there may be thousands."""
    with ThreadPoolExecutor(OPENED_AT_ONCE) as pool:
        return list(pool.map(opened, names))


def _glob_sources(pattern: str, columns: ColumnChoice) -> Iterator[Source]:
    found: list[Any] = []
    passed_over: Counter[str] = Counter()
    for match in matching(pattern):
        name = match.path
        if match.closed:
            found.append(Files((name,)))
        elif os.path.isdir(name):
            if "**" not in pattern:
                found += _folder_sources(name, columns)
        elif suffix_of(name) in NAMED_ONLY and not pattern.lower().endswith(suffix_of(name)):
            continue  # what stands beside images is not always about them
        elif is_image(name) or suffix_of(name) in MANIFESTS:
            found.append(_file_source(name, columns))
        else:
            note_unread(passed_over, name)
    if not found:
        others = f"; {told(passed_over)}" if passed_over else ""
        raise UsageError(f"no images found: {pattern}{others}", "Quote the pattern, and check it with ls.")
    yield from found
    if passed_over:
        yield Files((), passed_over)
