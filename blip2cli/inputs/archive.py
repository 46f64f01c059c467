"""What archives share: members that make up a sample, as WebDataset has it, and rows made of samples."""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blip2cli.inputs.encoding import NotText, decoded
from blip2cli.inputs.image_formats import is_image
from blip2cli.inputs.inference import Inference
from blip2cli.inputs.names import escaped, is_unicode
from blip2cli.inputs.source import Source
from blip2cli.records import ImageRef, Row, RowError

if TYPE_CHECKING:
    import pyarrow as pa

    from blip2cli.inputs.columns import ColumnChoice

TEXTS = (".json", ".txt", ".cls")
"""Texts that are read with an image; other members are skipped."""

MORE = "more"
"""The column that holds, as JSON, what no declared column can: later keys, and values of another type."""

LOOKED_AT = 16
"""Samples that decide which columns there are, and their types."""

MAX_TEXT = 16 << 20
"""Largest .json or .txt that is read."""

MAX_IMAGE = 1 << 30
"""Largest image that is read."""

MOST_TEXTS = 32 << 20
"""Bytes of the texts of one sample that are read."""

MOST_HELD = 64 << 20
"""Bytes of one sample that are held, where its images are read here, before a piece of it goes on."""

MOST_MEMBERS = 10_000
"""Members of one sample that are held before a piece of it goes on."""


@dataclass(frozen=True)
class Member:
    """One file in an archive: an image and where its bytes are, or a text of a sample; or what is wrong with it.

    One that is only `announced` comes again with its bytes: a sample that ends there is given before they are read.
    """

    name: str
    image: ImageRef | None = None
    text: bytes | None = None
    error: RowError | None = None
    announced: bool = False


def held(name: str, data: bytes) -> Member:
    """A member with its bytes."""
    return Member(name, ImageRef(data=data)) if is_image(name) else Member(name, text=data)


def visible(name: str) -> bool:
    """Whether a member is not hidden, nor what macOS adds."""
    parts = name.split("/")
    return not any((part.startswith(".") and part.strip(".")) or part == "__MACOSX" for part in parts)


def wanted(name: str) -> bool:
    """Whether a member is read: an image or a text of a sample, not hidden."""
    return (is_image(name) or key_of(name)[1] in TEXTS) and visible(name)


def key_of(name: str) -> tuple[str, str]:
    """A member's key and suffix by WebDataset's rule: split at the first dot of the file's name."""
    folder, file = posixpath.split(name)
    stem, dot, rest = file.partition(".")
    return posixpath.join(folder, stem), f"{dot}{rest.lower()}"


@dataclass(frozen=True)
class Samples:
    """The columns that the samples of an archive have, and how a sample becomes rows."""

    schema: pa.Schema
    columns: ColumnChoice

    @property
    def carried(self) -> list[str]:
        return [name for name in self.schema.names if name != self.columns.text]

    def rows(self, archive: str, members: Iterable[Member]) -> Iterator[Row]:
        """The rows of the samples whose members come one after the other: one for every image."""
        for key, sample in samples_in(members):
            record, fault = record_of(key, sample, self.columns.encoding)
            columns = self._declared(record)
            text = columns.pop(self.columns.text or "", None)
            images = [member for member in sample if is_image(member.name)]
            for image in images or [Member(key, error=RowError("missing", "no image in the sample"))]:
                needed = self.columns.image_required
                error = fault or (image.error if needed else None)
                reference = image.image if needed else None
                yield Row(0, escaped(f"{archive}/{image.name}"), reference, columns, text and str(text), error)

    def _declared(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The record's values under the declared columns; what does not fit is in `more`."""
        columns: dict[str, Any] = dict.fromkeys(self.schema.names)
        rest: dict[str, Any] = {}
        for name, value in record.items():
            if name in columns and name != MORE and _fits(value, self.schema.field(name).type):
                columns[name] = value
            elif value is not None:
                rest[name] = value
        if rest:
            columns[MORE] = json.dumps(rest, ensure_ascii=False)
        return columns


class Archive(Source):
    """A source that is one archive, or several of one data set; its class sets `files` and `samples`."""

    samples: Samples

    @property
    def holds_texts(self) -> bool:
        return True

    def column_names(self) -> list[str]:
        return self.samples.carried

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([self.samples.schema.field(name) for name in self.samples.carried])


def samples_in(members: Iterable[Member]) -> Iterator[tuple[str, list[Member]]]:
    """Keys, and the members that follow each other under them; those before a damage come out before it is raised.

    A member of a name that the sample has already begins another sample: archives are appended to each other.
    A sample that grows too large (MOST_HELD, MOST_MEMBERS) comes out in pieces, each with the texts so far.
    """
    key, sample = "", _Sample()
    try:
        for member in members:
            if key_of(member.name)[0] != key or sample.comes_again(member.name):
                yield from sample.rest(key)
                key, sample = key_of(member.name)[0], _Sample()
            elif sample.is_full:
                yield from sample.rest(key)
                sample = sample.after()
            if not member.announced:
                sample.add(member)
    except (tarfile.TarError, OSError):
        yield from sample.rest(key)
        raise
    yield from sample.rest(key)


class _Sample:
    """Members of one key that have come so far, or since the last piece of them went out."""

    def __init__(self, texts: Iterable[Member] = (), is_piece: bool = False) -> None:
        self.members = list(texts)
        self.is_piece = is_piece
        self.held = self.texts = sum(len(member.text or b"") for member in self.members)
        self.any_image = False
        self.names: set[str] = set()

    @property
    def is_full(self) -> bool:
        return self.any_image and (self.held > MOST_HELD or len(self.members) > MOST_MEMBERS)

    def comes_again(self, name: str) -> bool:
        """Whether a member of that name was here, beside an image: then the sample is over, and another one begins."""
        return self.any_image and name in self.names

    def add(self, member: Member) -> None:
        if len(self.members) > MOST_MEMBERS and not is_image(member.name):
            return  # texts of one name, over and over
        text = len(member.text or b"")
        if self.texts + text > MOST_TEXTS:
            fault = RowError("too-large", f"more than {MOST_TEXTS:,} bytes of texts in a sample")
            member = Member(member.name, error=fault)
            text = 0
        self.members.append(member)
        self.names.add(member.name)
        self.texts += text
        self.held += text + len((member.image and member.image.data) or b"")
        self.any_image = self.any_image or is_image(member.name)

    def rest(self, key: str) -> Iterator[tuple[str, list[Member]]]:
        """The members, unless all of them were in an earlier piece."""
        if self.members and (self.any_image or not self.is_piece):
            yield key, self.members

    def after(self) -> _Sample:
        """What is kept for the next piece."""
        return _Sample((member for member in self.members if not is_image(member.name)), is_piece=True)


def samples_of(archive: str, records: Iterable[Mapping[str, Any]], columns: ColumnChoice) -> Samples:
    """The columns of an archive by its first samples. Raises UsageError where the text column is missing."""
    import pyarrow as pa

    first = list(records)
    names = dict.fromkeys(name for record in first for name in record if name != MORE and is_unicode(name))
    simple = []
    for field in Inference(first).schema(names):
        simple.append(pa.field(field.name, field.type if _is_simple(field.type) else pa.string()))
    if columns.text_required and columns.text not in names:
        raise columns.no_text(archive, names)
    return Samples(pa.schema([*simple, pa.field(MORE, pa.string())]), columns)


def record_of(
    key: str, members: Iterable[Member], encoding: str | None = None
) -> tuple[dict[str, Any], RowError | None]:
    """What the texts of a sample say, and what is wrong with them."""
    record: dict[str, Any] = {"key": escaped(key)}
    fault = None
    for member in members:
        suffix = key_of(member.name)[1]
        if suffix not in TEXTS:
            continue
        if member.error:
            fault = fault or member.error
        elif suffix != ".json":
            try:
                record[suffix[1:]] = decoded(member.text or b"", encoding).removesuffix("\n")
            except NotText as error:
                fault = fault or RowError("unreadable", f"{escaped(member.name)} is {error}")
        elif (fields := _object(member.text or b"", encoding)) is not None:
            record.update(fields)
        else:
            fault = fault or RowError("unreadable", f"{escaped(member.name)} is not a JSON object")
    return record, fault


def _object(text: bytes, encoding: str | None) -> dict[str, Any] | None:
    try:
        value = json.loads(decoded(text, encoding))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_simple(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return any(test(kind) for test in (pa.types.is_boolean, pa.types.is_int64, pa.types.is_float64, pa.types.is_string))


def _fits(value: Any, kind: pa.DataType) -> bool:
    """Whether a column can hold a value of JSON; one of strings holds everything, as JSON."""
    import pyarrow as pa

    if value is None or pa.types.is_string(kind):
        return True
    if pa.types.is_boolean(kind) or isinstance(value, bool):
        return pa.types.is_boolean(kind) and isinstance(value, bool)
    if pa.types.is_int64(kind):
        return isinstance(value, int) and -(1 << 63) <= value < 1 << 63
    return isinstance(value, float) or (isinstance(value, int) and abs(value) <= 1 << 53)
