"""Tar archives, WebDataset shards among them, read as they stream by."""

from __future__ import annotations

import struct
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from itertools import islice
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

from blip2cli.errors import UsageError, reason
from blip2cli.host import storage
from blip2cli.inputs.archive import (
    LOOKED_AT,
    MAX_IMAGE,
    MAX_TEXT,
    Archive,
    Member,
    held,
    record_of,
    samples_in,
    samples_of,
    visible,
    wanted,
)
from blip2cli.inputs.image_formats import NO_IMAGES_HINT, is_image, note_unread
from blip2cli.inputs.links import BrokenLink, Links, normal
from blip2cli.inputs.names import escaped
from blip2cli.records import ImageRef, Row, RowError

if TYPE_CHECKING:
    from blip2cli.inputs.columns import ColumnChoice

MAX_HEADERS = 1 << 20
"""Bytes of headers that a member may have: long names, pax records, the map of a sparse file."""

MAX_LINKED = 4 << 30
"""Bytes of a compressed archive that its links may lead to: they are kept in a temporary file."""

FARTHEST = 1 << 60
"""Where a header may lead, in bytes from the start."""

END = bytes(tarfile.BLOCKSIZE)
"""The block that ends an archive, and fills it up."""

MOST_ZEROS = 1 << 12
"""Such blocks that are read, 2 MiB; then nothing follows."""

CHUNK = 1 << 20

UNSOUND = (ValueError, OverflowError, ArithmeticError, RecursionError, LookupError, struct.error)
"""What tarfile raises, besides its own errors, for headers that are damaged or malicious."""


class TarShards(Archive):
    """One tar archive, or several of one data set; their columns are those of the first.

    Of an archive on this machine that is not compressed only the headers are read here: workers read the images.
    """

    def __init__(self, name: str, columns: ColumnChoice, *names: str) -> None:
        self.names = names or (name,)
        self._unread: dict[str, Counter[str]] = {}
        samples = islice(samples_in(self._members(self.names[0], texts=True)), LOOKED_AT)
        first: list[dict[str, Any]] = []
        try:
            first += (record_of(key, sample, columns.encoding)[0] for key, sample in samples)
        except (tarfile.TarError, OSError) as error:
            if not first:  # else the rows report it
                raise UsageError(
                    f"cannot read {self.names[0]}: {reason(error)}",
                    storage.reading_hint(error, "Is it a tar archive?"),
                ) from None
        if not first and len(self.names) == 1:
            raise UsageError(f"no images found in {name}", NO_IMAGES_HINT)
        self.samples = samples_of(self.names[0], first, columns)

    def rows(self, start: int = 0) -> Iterator[Row]:
        return islice((row for name in self.names for row in self._rows(name)), start, None)

    @property
    def files(self) -> Sequence[str]:
        return self.names

    def split(self) -> Sequence[TarShards]:
        """Each archive by itself, with the columns of all."""
        return [self._alone(name) for name in self.names]

    def _alone(self, name: str) -> TarShards:
        shard = copy(self)
        shard.names = (name,)
        return shard

    def _rows(self, name: str) -> Iterator[Row]:
        """The rows of one archive; where it is damaged, those before that, and a row that says so."""
        number = 0
        try:
            for row in self.samples.rows(name, self._members(name)):
                yield row
                number += 1
        except (tarfile.TarError, OSError) as error:
            yield Row(0, f"{escaped(name)}#{number}", error=RowError("truncated", reason(error)))

    def unread(self) -> Counter[str]:
        return sum((self._unread[name] for name in self.names if name in self._unread), Counter())

    def _members(self, name: str, texts: bool = False) -> Iterator[Member]:
        """The members that are read, links among them; of `texts` alone those have their bytes."""
        unread = self._unread[name] = Counter()
        with ExitStack() as stack:
            archive = stack.enter_context(_opened(name))
            linked: _LinkedMembers | None = None
            for info in archive.headers():
                if info.isdir():
                    continue
                if not wanted(info.name):
                    if visible(info.name):
                        note_unread(unread, info.name)
                elif texts and is_image(info.name):
                    yield Member(info.name)
                elif info.issym() or info.islnk():
                    linked = linked or stack.enter_context(_LinkedMembers(name))
                    yield linked.member(info.name)
                else:
                    yield Member(info.name, announced=True)
                    yield archive.member(info)


@contextmanager
def _opened(name: str) -> Iterator[_Archive]:
    """An archive, to be walked once. Raises OSError."""
    with storage.decompressed(name) as unpacked:
        in_place = not storage.is_url(name) and unpacked.raw_path == name
        yield _Archive(_Watched(unpacked.file, forward=unpacked.raw_path is None), name if in_place else None)


class _Watched:
    """The file of an archive as tarfile has it: a header's size is bounded, and `last` is what was read last.

    `forward` is for a stream that cannot go back.
    """

    def __init__(self, file: Any, forward: bool) -> None:
        self.file, self.forward = file, forward
        self.at, self.room, self.last = 0, MAX_HEADERS, b""

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int) -> int:
        if offset < 0 or (self.forward and offset < self.at):
            raise tarfile.ReadError("a header leads backwards")
        if offset > FARTHEST:
            raise tarfile.ReadError("a header leads beyond the end of any file")
        if not self.forward:
            self.file.seek(offset)
            self.at = offset
        while self.at < offset and (passed := self.file.read(min(CHUNK, offset - self.at))):
            self.at += len(passed)
        return self.at

    def read(self, size: int) -> bytes:
        """Part of a header. Raises tarfile.ReadError where it is too long."""
        self.room -= size
        if size < 0 or self.room < 0:
            raise tarfile.ReadError(f"the headers of a member have more than {MAX_HEADERS:,} bytes")
        self.last = self._read(size)
        return self.last

    def data(self, offset: int, size: int) -> bytes:
        """A member's bytes. Raises tarfile.ReadError where the file ends before."""
        self.seek(offset)
        data = self._read(size)
        if len(data) < size:
            raise tarfile.ReadError("unexpected end of data")
        return data

    def _read(self, size: int) -> bytes:
        data: bytes = self.file.read(size)
        self.at += len(data)
        return data


class _Archive:
    """A tar archive on a walk from header to header; `path` is where it is, if members can be read in it."""

    def __init__(self, file: _Watched, path: str | None) -> None:
        self.file, self.path = file, path
        self.tar: Any = None

    def headers(self) -> Iterator[tarfile.TarInfo]:
        """The headers of all members. Raises OSError, and tarfile.TarError where one is damaged or leads backwards."""
        with _sound():
            self.tar = tarfile.TarFile(fileobj=self.file)  # type: ignore[arg-type]  # it reads and seeks
        zeros = 0
        while zeros <= MOST_ZEROS:
            if (info := self._next()) is not None:
                zeros = 0
                yield info
            elif self.file.last == END:  # another archive may follow, put behind this one
                zeros += 1
                self.tar.offset += len(END)
            elif zeros:
                return
            elif self.file.last.strip(b"\0"):
                raise tarfile.ReadError("the archive is damaged")
            else:
                raise tarfile.ReadError("the archive ends without its end mark; it may be cut short")

    def _next(self) -> tarfile.TarInfo | None:
        self.file.room = MAX_HEADERS
        with _sound():
            info: tarfile.TarInfo | None = self.tar.next()
        self.tar.members = []  # which it would keep, all of them
        self.tar.pax_headers = {}
        if info is not None and (info.size < 0 or self.tar.offset < info.offset_data):
            raise tarfile.ReadError(f"the header of {escaped(info.name)[:200]} leads backwards")
        return info

    def member(self, info: tarfile.TarInfo) -> Member:
        """A member at which the walk is; the bytes of an image stay where they are if that can be read in place."""
        if fault := _fault(info, info.name):
            return Member(info.name, error=fault)
        if is_image(info.name) and self.path is not None and not info.issparse():
            return Member(info.name, ImageRef(path=self.path, offset=info.offset_data, size=info.size))
        return held(info.name, self.bytes_of(info))

    def bytes_of(self, info: tarfile.TarInfo) -> bytes:
        """What a member holds, zeros where a sparse one has holes. Raises tarfile.ReadError."""
        if not info.issparse():
            return self.file.data(info.offset_data, info.size)
        self.file.room = 2 * info.size + MAX_HEADERS
        with _sound():
            data: bytes = self.tar.extractfile(info).read()
        if len(data) < info.size:
            raise tarfile.ReadError("unexpected end of data")
        return data


def _fault(info: tarfile.TarInfo, name: str) -> RowError | None:
    """Why a member is not read under a name."""
    if not info.isreg():
        return RowError("unreadable", "not a regular file")
    if info.size > (MAX_IMAGE if is_image(name) else MAX_TEXT):
        return RowError("too-large", f"{info.size:,} bytes")
    return None


class _LinkedMembers:
    """What the links of an archive lead to, found by two more walks over its headers, however many links there are.

    The first finds the links, the second the files that they lead to: their places, or where the archive is compressed
    their bytes, which go to a temporary file. Leave it as a context manager.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.links = Links()
        self.wanted: list[str] = []
        self.found: dict[str, ImageRef | tuple[int, int] | RowError | None] = {}
        self.damage: str | None = None
        self.kept: IO[bytes] | None = None
        self.size = 0

    def __enter__(self) -> _LinkedMembers:
        self._walk(self._note)
        self.found = dict.fromkeys(filter(None, map(self._target, self.wanted)))
        self._walk(self._take)
        return self

    def __exit__(self, *_: object) -> None:
        if self.kept is not None:
            self.kept.close()

    def member(self, name: str) -> Member:
        """A link as a member: with what it leads to, or the error that it leads nowhere."""
        try:
            found = self.found.get(self.links.target(name))
        except BrokenLink as error:
            return Member(name, error=RowError("missing", str(error)))
        if found is None and self.damage is not None:
            return Member(name, error=RowError("truncated", self.damage))
        if found is None:
            return Member(name, error=RowError("missing", "a link to a file that is not in the archive"))
        if isinstance(found, RowError):
            return Member(name, error=found)
        size = (found.size or 0) if isinstance(found, ImageRef) else found[1]
        if size > MAX_TEXT and not is_image(name):
            return Member(name, error=RowError("too-large", f"{size:,} bytes"))
        if isinstance(found, ImageRef) and is_image(name):
            return Member(name, found)
        return held(name, self._bytes(found))

    def _walk(self, use: Callable[[_Archive, tarfile.TarInfo], None]) -> None:
        """Go through the headers up to the first damaged one; the rows report the damage."""
        try:
            with _opened(self.name) as archive:
                for info in archive.headers():
                    use(archive, info)
        except (tarfile.TarError, OSError) as error:
            self.damage = reason(error)

    def _note(self, _: _Archive, info: tarfile.TarInfo) -> None:
        if info.issym() or info.islnk():
            self.links.add(info.name, info.linkname, hard=info.islnk())
            if wanted(info.name) and self.links.room >= 0:
                self.wanted.append(info.name)

    def _target(self, name: str) -> str | None:
        try:
            return self.links.target(name)
        except BrokenLink:
            return None

    def _take(self, archive: _Archive, info: tarfile.TarInfo) -> None:
        """Keep what a link may lead to: a place in the archive, or in the temporary file."""
        name = normal(info.name)
        if name not in self.found or info.issym() or info.islnk():
            return
        if not info.isreg():
            self.found[name] = RowError(
                "missing", f"a link to {'a folder' if info.isdir() else 'something that is not a file'}"
            )
        elif info.size > MAX_IMAGE:
            self.found[name] = RowError("too-large", f"{info.size:,} bytes")
        elif archive.path is not None and not info.issparse():
            self.found[name] = ImageRef(path=archive.path, offset=info.offset_data, size=info.size)
        elif self.size + info.size > MAX_LINKED:
            fault = f"links lead to more than {MAX_LINKED >> 30} GiB of this archive; unpack it"
            self.found[name] = RowError("too-large", fault)
        else:
            self.kept = self.kept or TemporaryFile()  # noqa: SIM115  # which is closed with this
            self.kept.write(archive.bytes_of(info))
            self.found[name] = (self.size, info.size)
            self.size += info.size

    def _bytes(self, found: ImageRef | tuple[int, int]) -> bytes:
        if isinstance(found, ImageRef):
            return storage.read(found.path or "", MAX_TEXT, found.offset, found.size)
        assert self.kept is not None
        self.kept.seek(found[0])
        return self.kept.read(found[1])


@contextmanager
def _sound() -> Iterator[None]:
    """Have what tarfile raises for headers that are damaged, or made to harm, be its own error."""
    try:
        yield
    except UNSOUND as error:
        if isinstance(error, OSError):  # which some are, too
            raise
        raise tarfile.ReadError(f"a header is damaged: {type(error).__name__}") from None
